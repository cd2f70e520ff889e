// A device between a test that plays its users and one that plays the engine.
#pragma once

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/error.h"
#include "base/result.h"
#include "base/unique_fd.h"
#include "control/channel_client.h"
#include "device/device.h"
#include "device/holder.h"
#include "os/packet_socket.h"
#include "testing/manual_clock.h"

namespace larder::device {

inline constexpr const char* kStateLine =
    "cull=0 frun=1 fcull=2 fstop=3 brun=4 bcull=5 bstop=6 freleased=7 breleased=8";

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_NE(::mkdtemp(top_.data()), nullptr);
    std::filesystem::create_directories(cache() / "cache" / "Ivolume" / "@3f");
    listener_ = os::listen_for_packets(top_ + "/control.sock", 0600).value();
    surroundings_.connect = [this] { return control::ChannelClient::connect(top_); };
    surroundings_.open_cache = [this](const std::string& path) -> Result<UniqueFd> {
      opened_ = path;
      UniqueFd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
      return directory.valid() ? Result<UniqueFd>(std::move(directory)) : fail_errno(errno, path);
    };
    surroundings_.open_working_directory = [this](std::uint32_t /*pid*/) -> Result<UniqueFd> {
      return UniqueFd(::open(standing_.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    };
    surroundings_.is_ending = [this](std::uint32_t pid) { return ending_.contains(pid); };
  }

  void TearDown() override {
    device_.end();
    std::filesystem::remove_all(top_);
  }

  [[nodiscard]] std::filesystem::path cache() const { return std::filesystem::path(top_) / "it"; }

  [[nodiscard]] std::filesystem::path fan_out() const { return cache() / "cache/Ivolume/@3f"; }

  // ---- The users. A request is known by its ticket; its result is an errno, 0 when it went well.

  Ticket open(std::uint32_t uid = 0) {
    const Ticket ticket = ++last_;
    device_.open(ticket, {10, uid}, note(ticket));
    return ticket;
  }

  Ticket write(const std::string& text) {
    const Ticket ticket = ++last_;
    device_.write(ticket, {10, 0}, text, note(ticket));
    return ticket;
  }

  Ticket read(std::size_t most_bytes = 4096) {
    const Ticket ticket = ++last_;
    device_.read(ticket, most_bytes, note(ticket));
    return ticket;
  }

  [[nodiscard]] std::optional<int> result(Ticket ticket) const {
    const auto found = results_.find(ticket);
    return found == results_.end() ? std::nullopt : std::optional(found->second);
  }

  // The same when the engine answers.
  int opened() { return after(open()); }

  int written(const std::string& text) { return after(write(text)); }

  std::string state() { return after(read()) == 0 ? bytes_ : "error"; }

  void bind() {
    ASSERT_EQ(opened(), 0);
    ASSERT_EQ(written("dir " + cache().string()), 0);
    ASSERT_EQ(written("bind"), 0);
    got_.clear();
    standing_ = fan_out();
  }

  // ---- The engine.

  // Accepts, reads and answers, and lets the device hear it, until nothing happens any more.
  void run() {
    for (bool busy = true; busy;) {
      device_.on_readable();
      busy = accept();
      busy = answer_all() || busy;
    }
  }

  bool accept() {
    Result<UniqueFd> engine = os::accept_for_packets(listener_);
    if (!engine) {
      return false;
    }
    engine_ = std::move(*engine);
    ++channels_;
    return true;
  }

  bool answer_all() {
    bool any = false;
    while (engine_.valid()) {
      std::array<std::byte, 40000> buffer{};
      const auto packet = os::receive_packet(engine_, buffer, os::Wait::kNo);
      if (!packet) {
        return any;
      }
      descriptors_ += packet->descriptors.size();
      const std::string text(text_of(Bytes(buffer).first(packet->length)));
      if (text != "cache") {
        got_.push_back(text);
      }
      (void)try_to_send(answer_(text));  // whoever asked may be gone
      any = true;
    }
    return any;
  }

  bool hung_up() {
    std::array<std::byte, 100> buffer{};
    const auto packet = os::receive_packet(engine_, buffer, os::Wait::kNo);
    return !packet && packet.error().code() == Errc::kNotFound;
  }

  bool try_to_send(std::string text) {
    const iovec part{text.data(), text.size()};
    return os::send_packet(engine_, std::span(&part, 1), {}, os::Wait::kNo).has_value();
  }

  void push(const std::string& line) {
    ASSERT_TRUE(try_to_send("state " + line + " bsize=1000\n"));
    device_.on_readable();
  }

  testing::ManualClock clock_;
  Surroundings surroundings_;
  Device device_{clock_, surroundings_};
  std::string top_ = ::testing::TempDir() + "device_XXXXXX";
  UniqueFd listener_;
  UniqueFd engine_;
  std::function<std::string(const std::string& text)> answer_ = [](const std::string& text) {
    return text == "state" ? std::string("ok\n") + kStateLine + " bsize=1000 ffree=9\n" : "ok\n";
  };
  std::vector<std::string> got_;
  std::size_t descriptors_ = 0;
  int channels_ = 0;
  std::string opened_;
  std::filesystem::path standing_ = "/";
  std::set<std::uint32_t> ending_;
  std::string bytes_;  // of the last read

 private:
  Done note(Ticket ticket) {
    return [this, ticket](Result<std::string> done) {
      EXPECT_FALSE(results_.contains(ticket)) << "answered twice";
      bytes_ = done ? *done : "";
      results_[ticket] = done ? 0 : done.error().error_number();
    };
  }

  int after(Ticket ticket) {
    run();
    return result(ticket).value_or(-1);
  }

  Ticket last_ = 0;
  std::map<Ticket, int> results_;
};

}  // namespace larder::device
