#include "cachefiles/caretaker.h"

#include <functional>
#include <memory>
#include <utility>

#include "base/mutex.h"

namespace larder::cachefiles {

void Caretaker::set(std::move_only_function<void()> changed) {
  const bool present = changed != nullptr;
  auto shared =
      present ? std::make_shared<std::move_only_function<void()>>(std::move(changed)) : nullptr;
  {
    const MutexLock lock(mutex_);
    changed_.swap(shared);
  }
  present_ = present;
}

void Caretaker::tell() {
  std::shared_ptr<std::move_only_function<void()>> changed;
  {
    const MutexLock lock(mutex_);
    changed = changed_;
  }
  if (changed != nullptr) {
    (*changed)();
  }
}

}  // namespace larder::cachefiles
