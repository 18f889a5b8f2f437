# find_package(maestro_messaging) and the target maestro::messaging, from the rooms as static libraries.
include(CMakePackageConfigHelpers)
include(GNUInstallDirs)

get_property(maestro_rooms GLOBAL PROPERTY MAESTRO_ROOMS)
foreach(room IN LISTS maestro_rooms)
  string(REGEX REPLACE "^maestro_" "" exported ${room})
  set_target_properties(${room} PROPERTIES EXPORT_NAME ${exported})
endforeach()
set_target_properties(maestro_asio PROPERTIES EXPORT_NAME asio)
# Who links it is compiled as C++20 without saying so.
target_compile_features(maestro_asio PUBLIC cxx_std_20)

install(TARGETS maestro_asio ${maestro_rooms} EXPORT maestro_messaging_targets
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/maestro DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}
  FILES_MATCHING PATTERN "*.hpp")
install(FILES ${PROJECT_SOURCE_DIR}/LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})

set(maestro_package_folder ${CMAKE_INSTALL_LIBDIR}/cmake/maestro_messaging)
install(EXPORT maestro_messaging_targets NAMESPACE maestro:: DESTINATION ${maestro_package_folder})
set(MAESTRO_HAS_KAFKA OFF)
if(TARGET maestro_kafka)
  set(MAESTRO_HAS_KAFKA ON)
endif()
configure_package_config_file(${CMAKE_CURRENT_LIST_DIR}/maestro_messaging-config.cmake.in
  ${PROJECT_BINARY_DIR}/maestro_messaging-config.cmake INSTALL_DESTINATION ${maestro_package_folder})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/maestro_messaging-config-version.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES
  ${PROJECT_BINARY_DIR}/maestro_messaging-config.cmake
  ${PROJECT_BINARY_DIR}/maestro_messaging-config-version.cmake
  DESTINATION ${maestro_package_folder})
