# What the command promises to scripts: its exit codes, its JSON, its errors.
function(maestro_command_test name status arguments)
  cmake_parse_arguments(CHECK "" "INPUT;OUTPUT;ERRORS" "" ${ARGN})
  add_test(NAME command_${name}
    COMMAND ${CMAKE_COMMAND} -DNAME=${name} -DPROGRAM=$<TARGET_FILE:maestro> -DARGUMENTS=${arguments} -DSTATUS=${status}
      -DINPUT=${CHECK_INPUT} -DOUTPUT=${CHECK_OUTPUT} -DERRORS=${CHECK_ERRORS}
      -P ${CMAKE_CURRENT_SOURCE_DIR}/check_command.cmake)
  set_tests_properties(command_${name} PROPERTIES TIMEOUT 120 LABELS command)
endfunction()

maestro_command_test(demo 0 "demo" OUTPUT "lost +0 +0\n.*Every message is accounted for")
maestro_command_test(demo_json 0 "demo|--fast|--json|--seed|3" OUTPUT "\"lost\":0.*\"kept\":true")
maestro_command_test(demo_lossy_network 0
  "demo|--fast|--json|-o|fault_seed=5|-o|fault_duplicate=0.02|-o|fault_delay=0.02" OUTPUT "\"kept\":true")
maestro_command_test(bench_throughput 0 "bench|--messages|20000|--json" OUTPUT "\"lost\":0,\"duplicated\":0,\"failed\":0")
maestro_command_test(bench_latency 0 "bench|--mode|latency|--messages|200|--json" OUTPUT "\"latency_of\":\"end to end\".*\"lost\":0")
maestro_command_test(bench_sequential 0 "bench|--mode|sequential|--messages|2000|--json" OUTPUT "\"lost\":0")
maestro_command_test(bench_too_small 2 "bench|--size|3" ERRORS "--size: Value 3 not in range")
maestro_command_test(bench_not_a_number 2 "bench|--rate|nan" ERRORS "--rate: Value nan not in range 0.001 to 1000000000")
maestro_command_test(bench_no_time 2 "bench|--timeout|nan" ERRORS "--timeout: Value nan not in range")
maestro_command_test(bench_unknown 1
  "bench|--messages|2000|--batch|1|--json|-o|fault_publish_unknown=0.01|-o|fault_seed=3"
  OUTPUT "\"lost\":0,\"duplicated\":0,\"failed\":0,\"unknown\":[1-9]"
  ERRORS "^maestro: of [0-9]+ more messages nobody knows whether they were published: memory: [^\n]*\n$")
maestro_command_test(demo_seed 2 "demo|--seed|99999999999999999999" ERRORS "not in range 0 to 18446744073709551615")
maestro_command_test(publish_value 0 "publish|orders|--value|{}|--json" OUTPUT "\"published\":1")
maestro_command_test(publish_lines 0 "publish|orders|--json" INPUT "one\ntwo\n" OUTPUT "\"published\":2,\"failed\":0")
maestro_command_test(publish_broken_line 1 "publish|orders|--jsonl" INPUT "{}\nnope\n" ERRORS "line 2 is not JSON")
maestro_command_test(publish_no_key 1 "publish|orders|--key-field|id" INPUT "{}" ERRORS "line 1 has no text, number or boolean in 'id'")
maestro_command_test(publish_broken_value 1 "publish|orders|--jsonl|--value|nope" ERRORS "line 1 is not JSON")
maestro_command_test(publish_bad_header 2 "publish|orders|--header|nope" INPUT "{}" ERRORS "--header takes name=value")
foreach(mode throughput latency sequential)
  maestro_command_test(bench_nothing_${mode} 1
    "bench|--mode|${mode}|--messages|20|--timeout|0.1|--json|-o|fault_publish_failure=1|-o|publish_timeout=20|-o|fault_seed=1"
    OUTPUT "\"publish_per_second\":0,\"consume_per_second\":0,\"p50_ms\":null,\"p99_ms\":null,.*\"first_delivery_ms\":null,"
    ERRORS "20 messages were not published")
endforeach()
maestro_command_test(bench_nothing_told 1
  "bench|--messages|20|--timeout|0.1|-o|fault_publish_failure=1|-o|publish_timeout=20|-o|fault_seed=1"
  OUTPUT "p50_ms +-\np99_ms +-\n")
maestro_command_test(publish_directory 1 "publish|orders|--file|/usr" ERRORS "cannot read '/usr': Is a directory")
maestro_command_test(publish_last_line 0 "publish|orders|--json" INPUT "one\ntwo" OUTPUT "\"published\":2,\"failed\":0")
maestro_command_test(publish_pattern 2 "publish|orders.*|--value|1" ERRORS "pattern cannot be published to")
maestro_command_test(subscribe_no_time 2 "subscribe|orders|--timeout|nan" ERRORS "Value nan not in range 0.001 to")
maestro_command_test(subscribe_none 2 "subscribe|orders|--max|0" ERRORS "Value 0 not in range 1 to 1000000000000")
maestro_command_test(subscribe_nothing 4 "subscribe|orders|--timeout|0.1" ERRORS "no message came")
maestro_command_test(status 0 "status|--json" OUTPUT "\"healthy\":true")
maestro_command_test(unreachable 3 "status|--broker|memory://x|-o|fault_seed=1|-o|fault_disconnect=1" ERRORS "maestro: ")
maestro_command_test(topics_none 4 "topics|list" ERRORS "no topics")
maestro_command_test(topic_not_found 4 "topics|describe|nope" ERRORS "nope")
maestro_command_test(topics_create 0 "topics|create|a.b|--partitions|3" OUTPUT "created a.b with 3 partitions")
maestro_command_test(purge_unconfirmed 2 "dlq|purge|orders.audit.dlq" ERRORS "Say --yes")
maestro_command_test(dead_letters_none 4 "dlq|list" ERRORS "no dead-letter topics")
maestro_command_test(config 0 "config|memory" OUTPUT "auto_offset_reset")
add_test(NAME command_config_markdown COMMAND ${CMAKE_COMMAND} "-DPROGRAM=$<TARGET_FILE:maestro>;config;--markdown"
  -DEXPECTED=${PROJECT_SOURCE_DIR}/docs/options.md -P ${PROJECT_SOURCE_DIR}/examples/compare_output.cmake)
set_tests_properties(command_config_markdown PROPERTIES TIMEOUT 120 LABELS command)
maestro_command_test(config_in_force 0 "config|kafka|--json|-o|sasl_password=hunter2|-o|linger=7"
  OUTPUT "\"name\":\"sasl_password\"[^\n]*\"value\":\"...\",\"origin\":\"config\".*\"name\":\"linger\"[^\n]*\"value\":\"7\",\"origin\":\"config\"")
maestro_command_test(config_from_environment 0 "config|--json" OUTPUT "\"name\":\"max_retry_attempts\"[^\n]*\"value\":\"9\",\"origin\":\"environment\"")
set_tests_properties(command_config_from_environment PROPERTIES ENVIRONMENT MESSAGING_MAX_RETRY_ATTEMPTS=9)
maestro_command_test(config_bogus 2 "config|-o|bogus=7" ERRORS "\"bogus\" in connection_config")
maestro_command_test(config_unknown_broker 2 "config|kafak" ERRORS "kafka")
maestro_command_test(unknown_option 2 "status|-o|prefetsch=3" ERRORS "did you mean .prefetch.")
maestro_command_test(option_without_value 2 "status|-o|sasl_password:hunter2" ERRORS "there is no = after 'sasl_password'")
maestro_command_test(option_of_another 2 "status|-o|sasl_pasword=x" ERRORS "did you mean .sasl_password., an option of kafka")
maestro_command_test(no_url 2 "status|--broker|memory:" ERRORS "allowed are memory://name")
maestro_command_test(unknown_verb 2 "pubish" ERRORS "Did you mean 'publish'")
maestro_command_test(completion 0 "completion|bash" OUTPUT "complete -o default -F _maestro maestro")
add_test(NAME command_streams COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/check_streams.sh $<TARGET_FILE:maestro>)
set_tests_properties(command_streams PROPERTIES TIMEOUT 120 LABELS command)
add_test(NAME command_completion_bash COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/check_completion.sh $<TARGET_FILE:maestro>)
set_tests_properties(command_completion_bash PROPERTIES TIMEOUT 120 LABELS command)
