// ScriptedBackend: a cache in memory whose blocking calls do what the test says before they work.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "base/clock.h"
#include "base/result.h"
#include "fscache/backend.h"
#include "testing/memory_backend.h"

namespace larder::fscache {

// What a test scripts and what it sees. Outlives the backend.
struct BackendScript {
  testing::MemoryDisk disk;
  std::function<Result<>()> on_open_volume;
  std::function<Result<>()> on_open_object;
  int withdrawals = 0;
  int alive = 0;  // backends
};

class ScriptedVolume final : public BackendVolume {
 public:
  ScriptedVolume(BackendScript& script, std::unique_ptr<BackendVolume> inner)
      : script_(script), inner_(std::move(inner)) {}

  Result<std::unique_ptr<BackendObject>> open_object(
      const ObjectDescription& description) override {
    if (script_.on_open_object) {
      TRY(script_.on_open_object());
    }
    return inner_->open_object(description);
  }

  Result<> discard(std::string_view key) override { return inner_->discard(key); }

 private:
  BackendScript& script_;
  const std::unique_ptr<BackendVolume> inner_;
};

class ScriptedBackend final : public Backend {
 public:
  explicit ScriptedBackend(BackendScript& script)
      : script_(script), inner_(testing::make_memory_backend(script.disk)) {
    ++script_.alive;
  }

  ScriptedBackend(const ScriptedBackend&) = delete;
  ScriptedBackend& operator=(const ScriptedBackend&) = delete;

  ~ScriptedBackend() override { --script_.alive; }

  Result<std::unique_ptr<BackendVolume>> open_volume(std::string_view key) override {
    if (script_.on_open_volume) {
      TRY(script_.on_open_volume());
    }
    std::unique_ptr<BackendVolume> inner = TRY(inner_->open_volume(key));
    return std::make_unique<ScriptedVolume>(script_, std::move(inner));
  }

  Duration run_maintenance() override { return inner_->run_maintenance(); }

  void set_maintenance_wake(std::move_only_function<void()> wake) override {
    inner_->set_maintenance_wake(std::move(wake));
  }

  Result<> withdraw() override {
    ++script_.withdrawals;
    return inner_->withdraw();
  }

  [[nodiscard]] BackendStatus status() const override { return inner_->status(); }

  [[nodiscard]] bool take_pressed() override { return inner_->take_pressed(); }

  [[nodiscard]] bool usable() const override { return inner_->usable(); }

 private:
  BackendScript& script_;
  const std::unique_ptr<Backend> inner_;
};

}  // namespace larder::fscache
