# RP_REVISION: the 40 hex digits of the measured source, for the result files.
set(RP_REVISION "${RP_COMMIT}")
if(NOT RP_REVISION)
    execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} rev-parse HEAD
        OUTPUT_VARIABLE RP_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
if(NOT RP_REVISION)
    set(RP_REVISION "0000000000000000000000000000000000000000")
endif()
message(STATUS "revision: ${RP_REVISION}")
