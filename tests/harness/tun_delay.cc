// larder_tun_delay: a slow link between two network namespaces. A tun device in each; every packet
// is held back for the delay and the time its bytes take at the rate; some are lost.
#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <optional>
#include <random>
#include <ratio>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <fmt/core.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <poll.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/result.h"
#include "base/unique_fd.h"

namespace larder {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaximumPacket = 2048;
constexpr int kBatch = 64;
constexpr const char* kUsage =
    "usage: larder_tun_delay NAMESPACE NAMESPACE DELAY_MS RATE_MBIT LOSS_PERCENT SEED\n"
    "       a rate of 0 is no limit; prints \"ready\" when both devices wan0 exist\n";

struct Link {
  Clock::duration delay{};
  double nanoseconds_per_byte = 0;
  double loss = 0;
};

// One way of the link. Like a router it keeps a queue of a delay and 50 ms and drops what comes on
// top.
class Way {
 public:
  Way(const Link& link, int from, int to) : link_(link), from_(from), to_(to) {}

  void receive(Clock::time_point now, std::minstd_rand& random) {
    for (int i = 0; i < kBatch; ++i) {
      std::array<char, kMaximumPacket> buffer{};
      const ssize_t length = ::read(from_, buffer.data(), buffer.size());
      if (length <= 0) {
        return;
      }
      if (!std::bernoulli_distribution(link_.loss)(random)) {
        queue(now, {buffer.data(), buffer.data() + length});
      }
    }
  }

  void send_due(Clock::time_point now) {
    while (!packets_.empty() && packets_.front().due <= now) {
      const std::vector<char>& bytes = packets_.front().bytes;
      // A packet that the device does not take is lost, as on any link.
      static_cast<void>(::write(to_, bytes.data(), bytes.size()) == 0);
      packets_.pop_front();
    }
  }

  [[nodiscard]] std::optional<Clock::time_point> next_due() const {
    return packets_.empty() ? std::nullopt : std::optional(packets_.front().due);
  }

 private:
  struct Packet {
    Clock::time_point due;
    std::vector<char> bytes;
  };

  void queue(Clock::time_point now, std::vector<char> bytes) {
    constexpr auto kQueue = std::chrono::milliseconds(50);
    link_free_ = std::max(link_free_, now);
    if (link_free_ - now > link_.delay * 2 + kQueue) {
      return;
    }
    link_free_ += std::chrono::nanoseconds(
        static_cast<std::int64_t>(link_.nanoseconds_per_byte * static_cast<double>(bytes.size())));
    packets_.push_back({.due = link_free_ + link_.delay, .bytes = std::move(bytes)});
  }

  Link link_;
  int from_;
  int to_;
  Clock::time_point link_free_{};
  std::deque<Packet> packets_;
};

// The device lives as long as the descriptor, in the namespace that was entered when it was made.
Result<UniqueFd> open_tun(const std::string& name_space) {
  const UniqueFd inside(::open(("/run/netns/" + name_space).c_str(), O_RDONLY | O_CLOEXEC));
  if (!inside.valid() || ::setns(inside.get(), CLONE_NEWNET) != 0) {
    return fail_errno(errno, "entering namespace " + name_space);
  }
  UniqueFd device(::open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC));
  ifreq request{};
  request.ifr_flags = IFF_TUN | IFF_NO_PI;
  std::memcpy(&request.ifr_name[0], "wan0", sizeof "wan0");
  if (!device.valid() || ::ioctl(device.get(), TUNSETIFF, &request) != 0) {
    return fail_errno(errno, "making wan0 in " + name_space);
  }
  return device;
}

[[noreturn]] void shuttle(const Link& link, const UniqueFd& first, const UniqueFd& second,
                          std::minstd_rand random) {
  std::array ways{Way(link, first.get(), second.get()), Way(link, second.get(), first.get())};
  std::array<pollfd, 2> polled{{{.fd = first.get(), .events = POLLIN, .revents = 0},
                                {.fd = second.get(), .events = POLLIN, .revents = 0}}};
  while (true) {
    const auto before = Clock::now();
    auto wake = before + std::chrono::seconds(1);
    for (const Way& way : ways) {
      wake = std::min(wake, way.next_due().value_or(wake));
    }
    const auto wait = std::max(wake - before, Clock::duration::zero());
    const timespec timeout{.tv_sec = wait / std::chrono::seconds(1),
                           .tv_nsec = (wait % std::chrono::seconds(1)).count()};
    ::ppoll(polled.data(), polled.size(), &timeout, nullptr);
    const auto now = Clock::now();
    for (Way& way : ways) {
      way.receive(now, random);
      way.send_due(now);
    }
  }
}

Result<> run(const std::vector<std::string>& arguments) {
  const double delay_ms = std::strtod(arguments[2].c_str(), nullptr);
  const double rate_mbit = std::strtod(arguments[3].c_str(), nullptr);
  const Link link{.delay = std::chrono::duration_cast<Clock::duration>(
                      std::chrono::duration<double, std::milli>(delay_ms)),
                  .nanoseconds_per_byte = rate_mbit > 0 ? 8000.0 / rate_mbit : 0,
                  .loss = std::strtod(arguments[4].c_str(), nullptr) / 100};
  const UniqueFd first = TRY(open_tun(arguments[0]));
  const UniqueFd second = TRY(open_tun(arguments[1]));
  fmt::print("ready\n");
  static_cast<void>(std::fflush(stdout));
  const unsigned long seed = std::strtoul(arguments[5].c_str(), nullptr, 10);
  shuttle(link, first, second, std::minstd_rand(static_cast<std::uint32_t>(seed)));
}

}  // namespace
}  // namespace larder

int main(int count, char** values) {
  const std::vector<std::string> arguments(values + 1, values + count);
  if (arguments.size() != 6) {
    fmt::print(stderr, "{}", larder::kUsage);
    return 2;
  }
  const larder::Result<> result = larder::run(arguments);
  fmt::print(stderr, "larder_tun_delay: {}\n", result.error().message());
  return 1;
}
