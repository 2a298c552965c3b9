# rp_options: what every target of ours is compiled and linked with. In C a variable may have the
# name of its type (`error *error`), so only local shadowing is warned of.
add_library(rp_options INTERFACE)
# Warnings are errors with the compiler that this is developed with (GCC 12); what a newer one newly
# warns of must not stop a stranger's build.
set(warnings_are_errors "")
if(CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
    set(warnings_are_errors -Werror)
endif()
set(host_warnings -Wall -Wextra -Wconversion -Wno-missing-field-initializers)
target_compile_options(rp_options INTERFACE
    $<$<COMPILE_LANGUAGE:C>:${host_warnings};$<$<C_COMPILER_ID:GNU>:-Wshadow=local>;-Wstrict-prototypes;-Wvla;${warnings_are_errors}>
    $<$<COMPILE_LANGUAGE:CXX>:${host_warnings};$<$<CXX_COMPILER_ID:Clang>:-Wno-sign-conversion>;-Wshadow;${warnings_are_errors}>
    $<$<COMPILE_LANGUAGE:C,CXX>:-fstack-protector-strong>)
target_link_options(rp_options INTERFACE
    $<$<NOT:$<LINK_LANGUAGE:CUDA>>:-Wl,-z,relro,-z,now>)
if(NOT RP_SANITIZE)
    # Undefined first: some distributions' compilers define a lower one themselves. A compiler or
    # C library that doesn't know level 3 takes it for 2.
    target_compile_options(rp_options INTERFACE
        $<$<AND:$<COMPILE_LANGUAGE:C,CXX>,$<NOT:$<CONFIG:Debug>>>:-U_FORTIFY_SOURCE;-D_FORTIFY_SOURCE=3>)
else()
    target_compile_options(rp_options INTERFACE
        $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=${RP_SANITIZE};-fno-sanitize-recover=all;-fno-omit-frame-pointer>)
    target_link_options(rp_options INTERFACE -fsanitize=${RP_SANITIZE})
endif()
if(RP_FUZZ)
    # vptr and function need the C++ runtime, which clang does not give a C program.
    target_compile_options(rp_options INTERFACE
        $<$<COMPILE_LANGUAGE:C,CXX>:-fsanitize=fuzzer-no-link;-fno-sanitize=vptr,function>)
endif()

# rp_enabled(<out> <option value> <found> <name> <hint>): one rule for AUTO, ON and OFF.
function(rp_enabled out value found name hint)
    if(value STREQUAL "OFF")
        set(result OFF)
        message(STATUS "${name}: off (asked for)")
    elseif(found)
        set(result ON)
        message(STATUS "${name}: on")
    elseif(value STREQUAL "ON")
        message(FATAL_ERROR "${name}: not found; ${hint}")
    else()
        set(result OFF)
        message(STATUS "${name}: off (not found; ${hint})")
    endif()
    set(${out} ${result} PARENT_SCOPE)
endfunction()
