#include "adapters/nfs/url.h"

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstdint>
#include <expected>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include "adapters/nfs/options.h"
#include "base/error.h"
#include "base/result.h"

namespace larder::nfs {

namespace {

constexpr std::string_view kScheme = "nfs://";
constexpr std::size_t kMostHostBytes = 255;
constexpr std::size_t kMostPathBytes = 1024;  // MNTPATHLEN

std::unexpected<Error> fail_url(std::string_view text, std::string_view what) {
  return fail(Errc::kInvalid,
              fmt::format("'{}': {}; write nfs://HOST/EXPORT or HOST:/EXPORT", text, what));
}

Result<std::string> percent_decoded(std::string_view text) {
  std::string decoded;
  while (!text.empty()) {
    if (text.front() != '%') {
      decoded += text.front();
      text.remove_prefix(1);
      continue;
    }
    std::uint8_t value = 0;
    const std::string_view digits = text.substr(1, 2);
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    if (error != std::errc() || digits.size() != 2 || end != digits.data() + 2) {
      return fail(
          Errc::kInvalid,
          fmt::format("'{}' is no percent code; write a percent sign as %25", text.substr(0, 3)));
    }
    decoded += static_cast<char>(value);
    text.remove_prefix(3);
  }
  return decoded;
}

bool has_only_host_characters(std::string_view host) {
  return std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           std::string_view("-._:%").contains(c);
  });
}

struct HostAndRest {
  std::string host;
  std::string_view rest;  // behind the host
};

// Takes the host from the front of `text`, which may be an IPv6 address in brackets.
Result<HostAndRest> split_host(std::string_view whole, std::string_view text) {
  std::size_t end = text.find_first_of(":/?");
  std::string_view host = text.substr(0, end);
  if (text.starts_with('[')) {
    end = text.find(']');
    if (end == std::string_view::npos) {
      return fail_url(whole, "the ']' behind the address is missing");
    }
    host = text.substr(1, end - 1);
    ++end;
  }
  if (host.empty()) {
    return fail_url(whole, "the host is missing");
  }
  if (host.size() > kMostHostBytes || !has_only_host_characters(host)) {
    return fail_url(whole, "the host is neither a name nor an address");
  }
  return HostAndRest{std::string(host), text.substr(std::min(end, text.size()))};
}

Result<std::string> checked_path(std::string_view whole, std::string path) {
  while (path.size() > 1 && path.ends_with('/')) {
    path.pop_back();
  }
  if (path.size() > kMostPathBytes) {
    return fail_url(whole, fmt::format("the export is longer than {} bytes", kMostPathBytes));
  }
  if (path.contains('\0')) {
    return fail_url(whole, "the export has a NUL in it");
  }
  return path;
}

Result<> apply_parameter(NfsUrl& url, std::string_view whole, std::string_view parameter) {
  const Result<OptionOutcome> outcome = apply_option(url.options, parameter);
  if (!outcome) {
    return fail(outcome.error().within(fmt::format("'{}'", whole)));
  }
  if (*outcome == OptionOutcome::kUnknown) {
    return fail(
        Errc::kInvalid,
        fmt::format("'{}': there is no parameter '{}'; known are nfsport (or port), mountport, "
                    "rsize, wsize, nconnect, timeo, retrans, soft, hard, resvport, noresvport",
                    whole, parameter.substr(0, parameter.find('='))));
  }
  return {};
}

Result<> apply_query(NfsUrl& url, std::string_view whole, std::string_view query) {
  while (!query.empty()) {
    const std::string_view parameter = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), parameter.size() + 1));
    const Result<> applied =
        parameter.empty() ? Result<>() : apply_parameter(url, whole, parameter);
    if (!applied) {
      return applied;
    }
  }
  return {};
}

Result<NfsUrl> parse_with_scheme(std::string_view text) {
  NfsUrl url;
  auto [host, rest] = TRY(split_host(text, text.substr(kScheme.size())));
  url.host = std::move(host);
  const std::size_t question = rest.find('?');
  const std::string_view authority_and_path = rest.substr(0, question);
  const std::size_t slash = authority_and_path.find('/');
  const std::string_view authority = authority_and_path.substr(0, slash);
  if (!authority.empty()) {
    if (!authority.starts_with(':')) {
      return fail_url(text, fmt::format("'{}' behind the host makes no sense", authority));
    }
    url.port = authority.substr(1);
    url.options.nfs_port = TRY(parse_port(url.port, fmt::format("'{}'", text)));
  }
  if (slash == std::string_view::npos) {
    return fail_url(text, "the export is missing");
  }
  const Result<std::string> path = percent_decoded(authority_and_path.substr(slash));
  if (!path) {
    return fail(path.error().within(fmt::format("'{}'", text)));
  }
  url.path = TRY(checked_path(text, *path));
  if (question != std::string_view::npos) {
    TRY(apply_query(url, text, rest.substr(question + 1)));
  }
  return url;
}

}  // namespace

Result<NfsUrl> parse_nfs_url(std::string_view text) {
  if (text.starts_with(kScheme)) {
    return parse_with_scheme(text);
  }
  NfsUrl url;
  auto [host, rest] = TRY(split_host(text, text));
  url.host = std::move(host);
  if (!rest.starts_with(":/")) {
    return fail_url(text, "it names no export");
  }
  url.path = TRY(checked_path(text, std::string(rest.substr(1))));
  return url;
}

}  // namespace larder::nfs
