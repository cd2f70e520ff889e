// Thread: a named thread for a loop that lives as long as its owner (a pool's worker, a socket's
// reader). std::thread is used here and nowhere else.
#pragma once

#include <functional>
#include <string>
#include <thread>

namespace larder {

// Blocks all signals in the new thread: they are the main thread's.
// Life: the destructor joins; the owner must have told the loop to end before.
class Thread {
 public:
  Thread() = default;
  // `name` is cut to 15 bytes.
  Thread(const std::string& name, std::move_only_function<void()> body);
  Thread(Thread&& other) noexcept = default;
  Thread& operator=(Thread&& other) noexcept = default;
  Thread(const Thread&) = delete;
  Thread& operator=(const Thread&) = delete;

  ~Thread() { join(); }

  void join();

  [[nodiscard]] bool joinable() const { return thread_.joinable(); }

  // True on the thread itself.
  [[nodiscard]] bool is_current() const { return thread_.get_id() == std::this_thread::get_id(); }

 private:
  std::thread thread_;
};

}  // namespace larder
