// Runs a fuzzer once on each file of the folder that is its argument: a build without libFuzzer
// tests with it that the corpus breaks nothing, and that the fuzzer still compiles.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <exception>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::vector<std::uint8_t> bytes_of(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  file.exceptions(std::ios::badbit | std::ios::failbit);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

int replay(const char* folder) {
  std::size_t runs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    // Who reads of an abort wants to know on what.
    std::fprintf(stderr, "%s\n", entry.path().c_str());
    const std::vector<std::uint8_t> input = bytes_of(entry.path());
    LLVMFuzzerTestOneInput(input.data(), input.size());
    ++runs;
  }
  if (runs == 0) {
    std::fprintf(stderr, "%s: no file in it\n", folder);
    return 1;
  }
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2) {
    std::fputs("usage: FUZZER FOLDER\n", stderr);
    return 2;
  }
  try {
    return replay(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s: %s\n", arguments[1], error.what());
    return 1;
  }
}
