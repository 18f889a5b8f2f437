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
maestro_command_test(demo_concurrency 0 "demo|--fast|--records|50|-o|concurrency=3" OUTPUT "two groups, 3 handlers each")
maestro_command_test(demo_concurrency_of_both 0 "demo|--fast|--records|50|-o|concurrency=3|--concurrency|5" OUTPUT "two groups, 5 handlers each")
foreach(option group_id=x max_retry_attempts=1 enable_dead_letter_queue=false auto_offset_reset=latest enable_auto_commit=false)
  string(REGEX REPLACE "=.*" "" name ${option})
  maestro_command_test(demo_refuses_${name} 2 "demo|--fast|-o|${option}" ERRORS "${name}: the demo needs its own")
endforeach()
maestro_command_test(demo_refuses_of_url 2 "demo|--fast|--broker|memory://demo?group_id=x" ERRORS "group_id: the demo needs its own")
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
foreach(mode throughput latency sequential)
  maestro_command_test(bench_nothing_${mode} 1
    "bench|--mode|${mode}|--messages|20|--timeout|0.1|--json|-o|fault_publish_failure=1|-o|publish_timeout=20|-o|fault_seed=1"
    OUTPUT "\"publish_per_second\":0,\"consume_per_second\":0,\"p50_ms\":null,\"p99_ms\":null,.*\"first_delivery_ms\":null,"
    ERRORS "20 messages were not published")
endforeach()
maestro_command_test(bench_nothing_told 1
  "bench|--messages|20|--timeout|0.1|-o|fault_publish_failure=1|-o|publish_timeout=20|-o|fault_seed=1"
  OUTPUT "p50_ms +-\np99_ms +-\n")
maestro_command_test(demo_seed 2 "demo|--seed|99999999999999999999" ERRORS "not in range 0 to 18446744073709551615")
maestro_command_test(publish_value 0 "publish|orders|--value|{}|--json" OUTPUT "\"published\":1")
maestro_command_test(publish_lines 0 "publish|orders|--json" INPUT "one\ntwo\n" OUTPUT "\"published\":2,\"failed\":0")
maestro_command_test(publish_empty_lines 0 "publish|orders|--json" INPUT "one\n\n\ntwo\n" OUTPUT "\"published\":4,\"failed\":0")
maestro_command_test(publish_empty_json_lines 0 "publish|orders|--json|--jsonl" INPUT "{}\n\n1\n" OUTPUT "\"published\":2,\"failed\":0,\"unknown\":0,\"skipped\":1")
maestro_command_test(publish_fraction_as_key 1 "publish|orders|--key-field|id" INPUT "{\"id\":1.5}" ERRORS "line 1 has a number in 'id' that is not whole")
maestro_command_test(publish_broken_line 1 "publish|orders|--jsonl" INPUT "{}\nnope\n" ERRORS "line 2 is not JSON")
maestro_command_test(publish_no_key 1 "publish|orders|--key-field|id" INPUT "{}" ERRORS "line 1 has no text, number or boolean in 'id'")
maestro_command_test(publish_broken_value 1 "publish|orders|--jsonl|--value|nope" ERRORS "line 1 is not JSON")
maestro_command_test(publish_bad_header 2 "publish|orders|--header|nope" INPUT "{}" ERRORS "--header takes name=value")
maestro_command_test(publish_directory 1 "publish|orders|--file|/usr" ERRORS "cannot read '/usr': Is a directory")
maestro_command_test(publish_last_line 0 "publish|orders|--json" INPUT "one\ntwo" OUTPUT "\"published\":2,\"failed\":0")
string(REPEAT "{}\n" 1200 lines)
maestro_command_test(publish_stops 1 "publish|orders|--json|-o|fault_publish_failure=1|-o|fault_seed=1|-o|publish_timeout=20" INPUT "${lines}"
  OUTPUT "\"published\":0,\"failed\":500,\"unknown\":0,.*\"ended_early\":true,\"last_line_tried\":500,.*\"failed_lines\":.*1,500"
  ERRORS "500 of 500 messages were not published, lines 1-500: .*nothing behind line 500 was tried. Go on with `tail -n .1`\n$")
# Of one line nobody knows, and what was given together with it was published.
maestro_command_test(publish_stops_in_doubt 1 "publish|orders|-o|fault_publish_unknown=0.001|-o|fault_seed=3" INPUT "${lines}"
  OUTPUT "^published [1-9]*[49]99 to orders\n$"
  ERRORS "may or may not have 1 of (500|1000) messages, line [0-9]+: .*behind line (500|1000) was tried. Publish the lines named here, then go on with `tail -n .(5|10)01`\n$")
string(REPEAT x 1024 line)
maestro_command_test(publish_goes_on 1 "publish|orders|--json|--key|k|-o|max_message_bytes=1024" INPUT "one\n${line}\n${line}x\ntwo\n"
  OUTPUT "\"published\":2,\"failed\":2,.*\"ended_early\":false,\"last_line_tried\":4,\"refused_lines\":.*2,3.*\"failed_lines\":..,"
  ERRORS "^maestro: 2 of 4 messages were not published, each for a reason of its own: line 2: [^\n]*\n$")
maestro_command_test(publish_pattern 2 "publish|orders.*|--value|1" ERRORS "pattern cannot be published to")
maestro_command_test(subscribe_no_time 2 "subscribe|orders|--timeout|nan" ERRORS "Value nan not in range 0.001 to")
maestro_command_test(subscribe_group_option 2 "subscribe|orders|-o|group_id=x" ERRORS "group_id: subscribe takes its group from --group")
maestro_command_test(subscribe_none 2 "subscribe|orders|--max|0" ERRORS "Value 0 not in range 1 to 1000000000000")
maestro_command_test(subscribe_nothing 4 "subscribe|orders|--timeout|0.1" ERRORS "no message came")
maestro_command_test(status 0 "status|--json" OUTPUT "\"healthy\":true")
maestro_command_test(unreachable 3 "status|--broker|memory://x|-o|fault_seed=1|-o|fault_disconnect=1" ERRORS "maestro: ")
maestro_command_test(topics_none 4 "topics|list" ERRORS "no topics")
maestro_command_test(topic_not_found 4 "topics|describe|nope" ERRORS "nope")
maestro_command_test(topics_create 0 "topics|create|a.b|--partitions|3" OUTPUT "created a.b with 3 partitions")
maestro_command_test(topics_create_help 0 "topics|create|--help" OUTPUT "auto_create_partitions")
maestro_command_test(delete_not_found 4 "topics|delete|nope|--yes" ERRORS "The topic does not exist; .maestro topics list. names those that do\n$")
maestro_command_test(purge_unconfirmed 2 "dlq|purge|orders.audit.dlq" ERRORS "Say --yes")
maestro_command_test(delete_unconfirmed 2 "topics|delete|orders" ERRORS "Say --yes")
maestro_command_test(dry_run_at_a_rate 2 "dlq|replay|orders.audit.dlq|--dry-run|--rate|5" ERRORS "--dry-run excludes --rate")
maestro_command_test(dead_letters_none 4 "dlq|list" ERRORS "no dead-letter topics")
if(TARGET maestro_kafka)
  foreach(option ssl_ca_location ssl_certificate_location ssl_key_location raw.ssl.key.location)
    maestro_command_test(no_${option} 3 "status|--broker|kafka://127.0.0.1:1|-o|security_protocol=SSL|-o|${option}=/no/such"
      ERRORS "^maestro: ${option}: ./no/such. cannot be read: No such file or directory")
  endforeach()
  if(NOT MAESTRO_SANITIZE MATCHES "thread")  # librdkafka is not built for it
    # It may be another cluster's.
    maestro_command_test(password_of_environment 3 "status|--broker|kafka://127.0.0.1:1" ERRORS "127.0.0.1:1")
    set_tests_properties(command_password_of_environment PROPERTIES ENVIRONMENT KAFKA_SASL_PASSWORD=hunter2)
  endif()
  maestro_command_test(ssl_key_folder 3 "status|--broker|kafka://127.0.0.1:1|-o|security_protocol=SSL|-o|ssl_key_location=/tmp"
    ERRORS "^maestro: ssl_key_location: ./tmp. cannot be read: Is a directory")
  maestro_command_test(ssl_key_text 3
    "status|--broker|kafka://127.0.0.1:1|-o|security_protocol=SSL|-o|ssl_key_location=${CMAKE_CURRENT_LIST_FILE}"
    ERRORS "^maestro: ssl_key_location: .[^ ]*tests.cmake. is not what it should be: librdkafka: ssl.key.location failed")
endif()
if(TARGET maestro_redis)
  maestro_command_test(redis_no_key 2 "status|--broker|rediss://127.0.0.1:1|-o|ssl_key_location=/no/such"
    ERRORS "^maestro: ssl_key_location: ./no/such. cannot be read: No such file or directory")
endif()
maestro_command_test(config 0 "config|memory" OUTPUT "auto_offset_reset")
add_test(NAME command_config_markdown COMMAND ${CMAKE_COMMAND} "-DPROGRAM=$<TARGET_FILE:maestro>;config;--markdown"
  -DEXPECTED=${PROJECT_SOURCE_DIR}/docs/options.md -P ${PROJECT_SOURCE_DIR}/examples/compare_output.cmake)
set_tests_properties(command_config_markdown PROPERTIES TIMEOUT 120 LABELS command)
maestro_command_test(config_in_force 0 "config|kafka|--json|-o|sasl_password=hunter2|-o|linger=7"
  OUTPUT "\"name\":\"sasl_password\"[^\n]*\"value\":\"...\",\"origin\":\"config\".*\"name\":\"linger\"[^\n]*\"value\":\"7\",\"origin\":\"config\"")
maestro_command_test(config_from_environment 0 "config|--json" OUTPUT "\"name\":\"max_retry_attempts\"[^\n]*\"value\":\"9\",\"origin\":\"environment\"")
set_tests_properties(command_config_from_environment PROPERTIES ENVIRONMENT MESSAGING_MAX_RETRY_ATTEMPTS=9)
maestro_command_test(config_password_from_environment 0 "config|kafka|--json"
  OUTPUT "\"name\":\"sasl_password\"[^\n]*\"value\":\"...\",\"origin\":\"environment\"")
set_tests_properties(command_config_password_from_environment PROPERTIES ENVIRONMENT KAFKA_SASL_PASSWORD=hunter2)
maestro_command_test(help_names_passwords 0 "--help" OUTPUT "KAFKA_SASL_PASSWORD, KAFKA_SSL_KEY_PASSWORD, REDIS_PASSWORD")
maestro_command_test(config_bogus 2 "config|-o|bogus=7" ERRORS "\"bogus\" in connection_config")
maestro_command_test(config_unknown_broker 2 "config|kafak" ERRORS "kafka")
maestro_command_test(unknown_option 2 "status|-o|prefetsch=3" ERRORS "did you mean .prefetch.")
maestro_command_test(option_without_value 2 "status|-o|sasl_password:hunter2" ERRORS "there is no = after 'sasl_password'")
maestro_command_test(option_secret_empty 2 "config|kafka|-o|sasl_password=" ERRORS "sasl_password in connection_config: it is empty")
maestro_command_test(option_of_another 2 "status|-o|sasl_pasword=x" ERRORS "did you mean .sasl_password., an option of kafka")
maestro_command_test(no_url 2 "status|--broker|memory:" ERRORS "allowed are memory://name")
maestro_command_test(config_nothing_near 2 "config|foo" ERRORS "no option 'foo'. Brokers are memory, kafka, redis, rabbitmq, nats")
maestro_command_test(config_markdown_of_one 2 "config|kafka|--markdown" ERRORS "excludes")
maestro_command_test(config_misspelt 2 "config|prefetsch" ERRORS "Did you mean 'prefetch'")
maestro_command_test(config_one 0 "config|linger|--json" OUTPUT "^[^\n]*\"name\":\"linger\"[^\n]*\n$")
maestro_command_test(empty_option 2 "status|-o|=3" ERRORS "no name in front of a =")
maestro_command_test(group_empty 2 "status|-o|group_id=" ERRORS "group_id in connection_config: \"\". allowed is name")
maestro_command_test(backoff_too_long 2 "status|-o|initial_backoff=31s" ERRORS "allowed is max_backoff at most, and that is 30000 ms")
maestro_command_test(multiplier 2 "status|-o|backoff_multiplier=101" ERRORS "allowed is number, 1 to 100")
maestro_command_test(scheme_misspelt 2 "status|--broker|kafak://h:9092" ERRORS "did you mean kafka://")
maestro_command_test(unknown_verb 2 "pubish" ERRORS "Did you mean 'publish'")
maestro_command_test(unknown_verb_far 2 "xyzzy" ERRORS "there is no verb 'xyzzy'. The verbs are demo, publish")
maestro_command_test(no_verb 2 "" ERRORS "a verb is missing. The verbs are demo, publish")
maestro_command_test(unknown_verb_below 2 "topics|lsit" ERRORS "there is no verb 'lsit'. Did you mean 'list'")
maestro_command_test(no_verb_below 2 "dlq" ERRORS "a verb is missing. Those of `maestro dlq` are list, show, replay, purge")
maestro_command_test(unknown_flag 2 "subscribe|orders|--grup=a" ERRORS "there is no option '--grup'. Did you mean '--group'")
maestro_command_test(unknown_flag_of_all 2 "--jsno|status" ERRORS "there is no option '--jsno'. Did you mean '--json'")
maestro_command_test(unknown_flag_far 2 "topics|list|--xyzzy" ERRORS "there is no option '--xyzzy'. `maestro topics list --help`")
maestro_command_test(completion 0 "completion|bash" OUTPUT "complete -o default -F _maestro maestro")
add_test(NAME command_streams COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/check_streams.sh $<TARGET_FILE:maestro>)
set_tests_properties(command_streams PROPERTIES TIMEOUT 120 LABELS command)
# The last two are skipped where there is no such shell.
foreach(shell bash zsh fish)
  add_test(NAME command_completion_${shell}
    COMMAND bash ${CMAKE_CURRENT_SOURCE_DIR}/check_completion_${shell}.sh $<TARGET_FILE:maestro>)
  set_tests_properties(command_completion_${shell} PROPERTIES TIMEOUT 120 LABELS command SKIP_RETURN_CODE 77)
endforeach()
