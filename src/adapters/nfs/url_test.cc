#include "adapters/nfs/url.h"

#include <chrono>
#include <string_view>

#include <gtest/gtest.h>

#include "adapters/nfs/options.h"
#include "base/error.h"
#include "base/result.h"

namespace larder::nfs {
namespace {

NfsUrl parsed(std::string_view text) {
  const Result<NfsUrl> url = parse_nfs_url(text);
  EXPECT_TRUE(url) << url.error().context();
  return url.value_or(NfsUrl{});
}

TEST(UrlTest, BothFormsNameHostAndExport) {
  const NfsUrl url = parsed("nfs://server/export/home/");
  EXPECT_EQ(url.host, "server");
  EXPECT_EQ(url.port, "");
  EXPECT_EQ(url.path, "/export/home");
  const NfsUrl colon = parsed("server.example:/export/a%20b");
  EXPECT_EQ(colon.host, "server.example");
  EXPECT_EQ(colon.path, "/export/a%20b") << "here a percent sign is a percent sign";
  EXPECT_EQ(parsed("nfs://server/").path, "/");
}

TEST(UrlTest, PortsAddressesAndEscapes) {
  const NfsUrl url = parsed("nfs://[fe80::1%eth0]:12049/a%2Fb%3f?mountport=12050&soft&rsize=65536");
  EXPECT_EQ(url.host, "fe80::1%eth0");
  EXPECT_EQ(url.port, "12049");
  EXPECT_EQ(url.path, "/a/b?");
  EXPECT_EQ(url.options.nfs_port, 12049);
  EXPECT_EQ(url.options.mount_port, 12050);
  EXPECT_TRUE(url.options.soft);
  EXPECT_EQ(url.options.read_size, 65536U);
  EXPECT_EQ(parsed("[::1]:/export").host, "::1");
  EXPECT_EQ(parsed("nfs://10.0.0.1/e?nfsport=1").options.nfs_port, 1);
}

struct WrongUrl {
  const char* url;
  const char* says;
};

// A person gets one sentence: what is wrong, where, what to write instead.
TEST(UrlTest, WrongOnesBecomeSentences) {
  const WrongUrl cases[] = {
      {"", "host is missing"},
      {"nfs://", "host is missing"},
      {"nfs:///export", "host is missing"},
      {"nfs://server", "export is missing"},
      {"nfs://server?soft", "export is missing"},
      {"server", "names no export"},
      {"server:export", "names no export"},
      {"/a/local/path", "host is missing"},
      {"nfs://server:0/e", "no port"},
      {"nfs://server:65536/e", "no port"},
      {"nfs://server:/e", "no port"},
      {"nfs://server:12x/e", "no port"},
      {"nfs://[::1/e", "']'"},
      {"nfs://[::1]x/e", "makes no sense"},
      {"nfs://ser ver/e", "neither a name"},
      {"nfs://server/%zz", "percent"},
      {"nfs://server/%4", "percent"},
      {"nfs://server/a%00b", "NUL"},
      {"nfs://server/e?colour=red", "no parameter 'colour'"},
      {"nfs://server/e?nfsport=99999", "no port"},
      {"nfs://server/e?rsize=1", "4096"},
      {"nfs://server/e?wsize=1", "4096"},
  };
  for (const WrongUrl& each : cases) {
    const Result<NfsUrl> url = parse_nfs_url(each.url);
    ASSERT_FALSE(url) << each.url;
    EXPECT_EQ(url.error().code(), Errc::kInvalid);
    EXPECT_TRUE(url.error().context().contains(each.says)) << url.error().context();
    EXPECT_TRUE(url.error().context().contains(each.url)) << url.error().context();
  }
}

TEST(OptionsTest, WordsOfTheMountCommandAreUnderstood) {
  NfsOptions options;
  for (const char* word : {"soft", "noresvport", "rsize=32768", "wsize=65536", "nconnect=4",
                           "timeo=50", "retrans=5", "port=2050", "mountport=635"}) {
    EXPECT_EQ(apply_option(options, word).value(), OptionOutcome::kApplied) << word;
  }
  EXPECT_TRUE(options.soft);
  EXPECT_FALSE(options.privileged_port);
  EXPECT_EQ(options.read_size, 32768U);
  EXPECT_EQ(options.connections, 4U);
  EXPECT_EQ(options.timeout, std::chrono::seconds(5));
  EXPECT_EQ(options.retrans, 5U);
  EXPECT_EQ(options.nfs_port, 2050);
  EXPECT_EQ(options.mount_port, 635);
  EXPECT_EQ(apply_option(options, "hard").value(), OptionOutcome::kApplied);
  EXPECT_FALSE(options.soft);
}

// The engine hands the rest to others: what is unknown here must not look like an error, and an
// error must not look unknown.
TEST(OptionsTest, UnknownIsNotWrong) {
  NfsOptions options;
  for (const char* word : {"", "ro", "actimeo=3", "rsize", "softly"}) {
    EXPECT_EQ(apply_option(options, word).value(), OptionOutcome::kUnknown) << word;
  }
  for (const char* word :
       {"rsize=", "rsize=4k", "rsize=1048577", "wsize=1048577", "nconnect=0", "nconnect=17",
        "timeo=0", "timeo=-1", "retrans=0", "port=0", "mountport=x"}) {
    const Result<OptionOutcome> outcome = apply_option(options, word);
    ASSERT_FALSE(outcome) << word;
    EXPECT_EQ(outcome.error().code(), Errc::kInvalid);
  }
  EXPECT_EQ(options, NfsOptions()) << "a wrong value changes nothing";
}

}  // namespace
}  // namespace larder::nfs
