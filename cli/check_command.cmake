# cmake -DPROGRAM=… -DARGUMENTS=a|b -DSTATUS=n [-DINPUT=text] [-DOUTPUT=regex] [-DERRORS=regex] -P check_command.cmake: runs
# the command and fails unless it ends with that status and prints what matches.
string(REPLACE "|" ";" arguments "${ARGUMENTS}")
set(input ${CMAKE_CURRENT_BINARY_DIR}/input_of_${NAME})
file(WRITE ${input} "${INPUT}")
execute_process(COMMAND ${PROGRAM} ${arguments} INPUT_FILE ${input}
  OUTPUT_VARIABLE printed ERROR_VARIABLE errors RESULT_VARIABLE status)
file(REMOVE ${input})
set(all "status ${status}\n--- output\n${printed}\n--- errors\n${errors}")
if(NOT status STREQUAL STATUS)
  message(FATAL_ERROR "expected status ${STATUS}, got ${all}")
endif()
if(OUTPUT AND NOT printed MATCHES "${OUTPUT}")
  message(FATAL_ERROR "expected output that matches ${OUTPUT}, got ${all}")
endif()
if(ERRORS AND NOT errors MATCHES "${ERRORS}")
  message(FATAL_ERROR "expected errors that match ${ERRORS}, got ${all}")
endif()
