# The language level, the warnings and the sanitizers that every target shares.
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  message(FATAL_ERROR
    "g++ ${CMAKE_CXX_COMPILER_VERSION} miscompiles aggregates passed by value inside a co_await expression "
    "(they are destroyed twice). Use clang 16 or newer (cmake --preset release takes clang 19) or g++ 13 or newer.")
endif()

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
# Alike for libraries and programs, so that they can share precompiled headers.
add_compile_options(-fPIC)
if(PROJECT_IS_TOP_LEVEL)
  set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)
  find_program(MAESTRO_CCACHE ccache)
  if(MAESTRO_CCACHE)
    set(CMAKE_CXX_COMPILER_LAUNCHER ${MAESTRO_CCACHE})
    # A precompiled header is only reused by ccache when time macros are declared unimportant.
    set(ENV{CCACHE_SLOPPINESS} "pch_defines,time_macros,include_file_mtime,include_file_ctime")
  endif()
endif()

add_library(maestro_build_flags INTERFACE)
target_compile_options(maestro_build_flags INTERFACE -Wall -Wextra -Wpedantic -Wshadow -Wno-missing-field-initializers
  -fno-omit-frame-pointer)
if(CMAKE_CXX_COMPILER_ID MATCHES "Clang")
  target_compile_options(maestro_build_flags INTERFACE -Xclang -fno-pch-timestamp)
  add_link_options(-fuse-ld=lld)
endif()
if(MAESTRO_SANITIZE)
  # Everything has to be built alike, the libraries compiled here included.
  add_compile_options(-fsanitize=${MAESTRO_SANITIZE} -fno-omit-frame-pointer -g1)
  string(REPLACE ",fuzzer-no-link" "" maestro_link_sanitizers "${MAESTRO_SANITIZE}")
  add_link_options(-fsanitize=${maestro_link_sanitizers})
  if(MAESTRO_SANITIZE MATCHES "undefined")
    add_compile_options(-fno-sanitize-recover=undefined)
  endif()
endif()
