# How a folder of src/ becomes a library, and its *_test.cc files one test program.

set(LARDER_WARNINGS -Wall -Wextra -Wpedantic -Wshadow -Wconversion -Wold-style-cast -Werror)
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  # TRY is a GNU statement expression; the thread annotations only exist here.
  list(APPEND LARDER_WARNINGS -Wno-gnu-statement-expression-from-macro-expansion -Wthread-safety
       -Wthread-safety-beta)
endif()

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++ 12 sees uninitialised members in every moved std::expected that is inlined far enough.
  list(APPEND LARDER_WARNINGS -Wno-maybe-uninitialized)
  if(CMAKE_UNITY_BUILD)
    # It takes every file for a header there.
    list(APPEND LARDER_WARNINGS -Wno-subobject-linkage)
  endif()
endif()

add_library(larder_options INTERFACE)
target_compile_options(larder_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${LARDER_WARNINGS}>)
target_compile_definitions(larder_options INTERFACE _FILE_OFFSET_BITS=64 _GNU_SOURCE
                           LARDER_VERSION="${PROJECT_VERSION}")
target_include_directories(larder_options INTERFACE "${CMAKE_SOURCE_DIR}/src")
if(LARDER_SANITIZER STREQUAL "address")
  target_compile_options(larder_options INTERFACE -fsanitize=address,undefined
                         -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(larder_options INTERFACE -fsanitize=address,undefined)
elseif(LARDER_SANITIZER STREQUAL "thread")
  target_compile_options(larder_options INTERFACE -fsanitize=thread -fno-omit-frame-pointer)
  target_link_options(larder_options INTERFACE -fsanitize=thread)
endif()

# How long a test program may run: with a sanitizer it takes ten times as long.
set(unit_seconds 300)
if(NOT LARDER_SANITIZER STREQUAL "")
  set(unit_seconds 1200)
endif()

# What the label "unit" runs.
add_custom_target(unit_tests)

# larder_library(NAME [DEPS lib...] [TEST_DEPS lib...])
#
# Every .cc of the calling folder goes into the static library larder_NAME, every *_test.cc into the
# program NAME_test, which CTest runs under the label "unit".
function(larder_library name)
  cmake_parse_arguments(arg "" "" "DEPS;TEST_DEPS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS "*.cc")
  set(tests ${sources})
  list(FILTER sources EXCLUDE REGEX "_test\\.cc$")
  list(FILTER tests INCLUDE REGEX "_test\\.cc$")

  set(deps)
  foreach(dep IN LISTS arg_DEPS)
    if(TARGET ${dep} OR dep MATCHES "::")
      list(APPEND deps ${dep})
    else()
      list(APPEND deps larder_${dep})
    endif()
  endforeach()

  if(sources)
    add_library(larder_${name} STATIC ${sources})
    target_link_libraries(larder_${name} PUBLIC larder_options ${deps})
  else()
    add_library(larder_${name} INTERFACE)
    target_link_libraries(larder_${name} INTERFACE larder_options ${deps})
  endif()

  if(LARDER_TESTS AND tests)
    add_executable(${name}_test ${tests})
    set(test_deps)
    foreach(dep IN LISTS arg_TEST_DEPS)
      list(APPEND test_deps larder_${dep})
    endforeach()
    target_link_libraries(${name}_test PRIVATE larder_${name} ${test_deps} GTest::gtest GTest::gmock
                                               GTest::gtest_main)
    add_test(NAME unit.${name} COMMAND ${name}_test)
    set_tests_properties(unit.${name} PROPERTIES LABELS unit TIMEOUT ${unit_seconds})
    add_dependencies(unit_tests ${name}_test)
  endif()
endfunction()
