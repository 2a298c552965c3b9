# RP_REVISION: the 40 hex digits of the measured source, for the result files. A commit configures
# anew, so that a build never names the one before.
set(RP_REVISION "${RP_COMMIT}")
if(NOT RP_REVISION)
    execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} rev-parse HEAD
        OUTPUT_VARIABLE RP_REVISION OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    execute_process(COMMAND git -C ${PROJECT_SOURCE_DIR} rev-parse --path-format=absolute
        --git-path logs/HEAD OUTPUT_VARIABLE git_log OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
    if(git_log AND EXISTS ${git_log})
        set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${git_log})
    endif()
endif()
if(NOT RP_REVISION)
    set(RP_REVISION "0000000000000000000000000000000000000000")
endif()
message(STATUS "revision: ${RP_REVISION}")
