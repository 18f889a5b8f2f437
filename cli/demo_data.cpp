#include "demo_data.hpp"

// The file as it is, read by the assembler: nothing to generate, and nothing to find at run time.
asm(".section .rodata,\"a\"\n"
    ".global maestro_demo_data_begin\n"
    ".global maestro_demo_data_end\n"
    "maestro_demo_data_begin:\n"
    ".incbin \"" MAESTRO_DEMO_DATA
    "\"\n"
    "maestro_demo_data_end:\n"
    ".byte 0\n"
    ".text\n");

extern "C" const char maestro_demo_data_begin[];
extern "C" const char maestro_demo_data_end[];

namespace maestro::cli {

std::string_view demo_data() {
  return {maestro_demo_data_begin, static_cast<std::size_t>(maestro_demo_data_end - maestro_demo_data_begin)};
}

}  // namespace maestro::cli
