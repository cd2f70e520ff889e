#include "base/thread.h"

#include <cstddef>
#include <functional>
#include <string>
#include <thread>
#include <utility>

#include <pthread.h>
#include <signal.h>

namespace larder {

namespace {

constexpr std::size_t kMostNameBytes = 15;  // TASK_COMM_LEN - 1

}  // namespace

Thread::Thread(const std::string& name, std::move_only_function<void()> body) {
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  thread_ = std::thread(std::move(body));
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  ::pthread_setname_np(thread_.native_handle(), name.substr(0, kMostNameBytes).c_str());
}

void Thread::join() {
  if (thread_.joinable()) {
    thread_.join();
  }
}

}  // namespace larder
