# What a C program outside this repository needs: librp.so and rp/rp.h, found by
# find_package(return_predictor) or by pkg-config. Both files find the folder they were put in, so
# that an installed tree may be moved.
if(NOT TARGET rp)
    return()
endif()
include(CMakePackageConfigHelpers)
install(TARGETS rp LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/shim/include/rp DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/return_predictor)
configure_package_config_file(
    ${CMAKE_CURRENT_LIST_DIR}/return_predictorConfig.cmake.in
    ${PROJECT_BINARY_DIR}/return_predictorConfig.cmake
    INSTALL_DESTINATION ${package_dir}
    PATH_VARS CMAKE_INSTALL_LIBDIR CMAKE_INSTALL_INCLUDEDIR
    NO_CHECK_REQUIRED_COMPONENTS_MACRO)
write_basic_package_version_file(
    ${PROJECT_BINARY_DIR}/return_predictorConfigVersion.cmake COMPATIBILITY SameMajorVersion)
install(FILES
    ${PROJECT_BINARY_DIR}/return_predictorConfig.cmake
    ${PROJECT_BINARY_DIR}/return_predictorConfigVersion.cmake
    DESTINATION ${package_dir})

file(RELATIVE_PATH prefix_from_pc /${CMAKE_INSTALL_LIBDIR}/pkgconfig /)
configure_file(${CMAKE_CURRENT_LIST_DIR}/return_predictor.pc.in
    ${PROJECT_BINARY_DIR}/return_predictor.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/return_predictor.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
