// Counts every allocation of a program with one thread, for the benchmarks that print allocations.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>

std::uint64_t allocation_count() noexcept;

namespace {
std::uint64_t allocations = 0;
}

std::uint64_t allocation_count() noexcept { return allocations; }

void* operator new(std::size_t size) {
  ++allocations;
  if (auto* memory = std::malloc(size)) return memory;
  throw std::bad_alloc();
}
void* operator new(std::size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto align = static_cast<std::size_t>(alignment);
  if (auto* memory = std::aligned_alloc(align, (size + align - 1) / align * align)) return memory;
  throw std::bad_alloc();
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
