# maestro_room(name SOURCES … LINK …): one room of src/, a static library maestro_<name>.
function(maestro_room name)
  cmake_parse_arguments(ROOM "" "" "SOURCES;LINK" ${ARGN})
  add_library(maestro_${name} STATIC ${ROOM_SOURCES})
  add_library(maestro::${name} ALIAS maestro_${name})
  target_include_directories(maestro_${name}
    PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include> $<INSTALL_INTERFACE:include>
    PRIVATE ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(maestro_${name} PUBLIC maestro_asio ${ROOM_LINK} PRIVATE $<BUILD_INTERFACE:maestro_build_flags>)
  if(name STREQUAL "core")
    target_precompile_headers(maestro_core PRIVATE ${PROJECT_SOURCE_DIR}/src/precompiled.hpp)
  else()
    target_precompile_headers(maestro_${name} REUSE_FROM maestro_core)
  endif()
  set_property(GLOBAL APPEND PROPERTY MAESTRO_ROOMS maestro_${name})
endfunction()
