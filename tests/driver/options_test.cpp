#include <gtest/gtest.h>

#include <string>
#include <vector>

extern "C" {
#include "base/options.h"
#include "command.h"
}

namespace {

struct Values {
    const char *prices = nullptr;
    bool quiet = false;
    int64_t epochs = 10;
    uint64_t seed = 1;
    double rate = 1e-3;
    string_list tickers = {};
    std::string message;

    bool read(std::vector<std::string> arguments) {
        arguments.insert(arguments.begin(), "train");
        std::vector<char *> argv;
        for (std::string &argument : arguments)
            argv.push_back(argument.data());
        kept_ = std::move(arguments);
        static const char *const known[] = {"AAPL", "MSFT", nullptr};
        option options[] = {
            {"prices", OPTION_STRING, &prices, "DIR", "price files", 0, 0, nullptr, true, false},
            {"quiet", OPTION_FLAG, &quiet, nullptr, "no progress", 0, 0, nullptr, false, false},
            {"epochs", OPTION_INT64, &epochs, "N", "passes", 1, 1000, nullptr, false, false},
            {"seed", OPTION_UINT64, &seed, "N", "seed", 0, 0, nullptr, false, false},
            {"rate", OPTION_DOUBLE, &rate, "X", "step size", 0, 1, nullptr, false, false},
            {"tickers", OPTION_LIST, &tickers, "LIST", "which", 0, 0, known, false, false},
        };
        error error = {""};
        bool ok = options_read(options, sizeof options / sizeof *options,
                               static_cast<int>(argv.size()), argv.data(), &error);
        message = error.message;
        return ok;
    }

  private:
    std::vector<std::string> kept_; // strings are borrowed from argv
};

TEST(Options, both_spellings_are_read) {
    Values values;
    ASSERT_TRUE(values.read({"--prices", "/p", "--epochs=3", "--seed", "18446744073709551615",
                             "--rate=2.5e-4", "--quiet", "--tickers", "AAPL,MSFT"}))
        << values.message;
    EXPECT_STREQ(values.prices, "/p");
    EXPECT_EQ(values.epochs, 3);
    EXPECT_EQ(values.seed, 18446744073709551615u);
    EXPECT_EQ(values.rate, 2.5e-4);
    EXPECT_TRUE(values.quiet);
    ASSERT_EQ(values.tickers.count, 2);
    EXPECT_STREQ(values.tickers.items[1], "MSFT");
}

TEST(Options, not_given_keep_their_defaults) {
    Values values;
    ASSERT_TRUE(values.read({"--prices=/p"}));
    EXPECT_EQ(values.epochs, 10);
    EXPECT_FALSE(values.quiet);
}

TEST(Options, mistakes_are_named) {
    const struct {
        std::vector<std::string> arguments;
        const char *message;
    } cases[] = {
        {{"--epoch", "3"}, "unknown option --epoch"},
        {{"prices"}, "'prices' is not expected here; options begin with --"},
        {{"--prices"}, "--prices needs a value: DIR"},
        {{"--epochs", "3"}, "--prices DIR is required"},
        {{"--prices=/p", "--epochs=3x"}, "--epochs: '3x' is not a whole number"},
        {{"--prices=/p", "--epochs= 3"}, "--epochs: ' 3' is not a whole number"},
        {{"--prices=/p", "--epochs="}, "--epochs: '' is not a whole number"},
        {{"--prices=/p", "--epochs=99999999999999999999"},
         "--epochs: '99999999999999999999' is not a whole number"},
        {{"--prices=/p", "--epochs=0"}, "--epochs: 0 is out of range; it must be from 1 to 1000"},
        {{"--prices=/p", "--seed=-1"}, "--seed: '-1' is not a whole number from 0 to 2^64-1"},
        {{"--prices=/p", "--rate=nan"}, "--rate: 'nan' is not a number"},
        {{"--prices=/p", "--rate=2"}, "--rate: 2 is out of range; it must be from 0 to 1"},
        {{"--prices=/p", "--quiet=yes"}, "--quiet takes no value"},
        {{"--prices=/p", "--prices=/q"}, "--prices is given twice"},
        {{"--prices=/p", "--tickers=AAPL,,MSFT"}, "--tickers: 'AAPL,,MSFT' has an empty item"},
        {{"--prices=/p", "--tickers=XYZ"}, "--tickers: 'XYZ' is unknown; known are AAPL, MSFT"},
    };
    for (const auto &c : cases) {
        Values values;
        EXPECT_FALSE(values.read(c.arguments));
        EXPECT_EQ(values.message, c.message);
    }
}

TEST(Options, help_and_mistakes_end_the_command_with_their_status) {
    int64_t epochs = 10;
    option options[] = {
        {"epochs", OPTION_INT64, &epochs, "N", "passes", 1, 9, nullptr, false, false}};
    char train[] = "train", help[] = "--help", bad[] = "--epoch";
    char *help_argv[] = {train, help}, *bad_argv[] = {train, bad};
    int status = -1;
    testing::internal::CaptureStdout();
    EXPECT_FALSE(OPTIONS_PARSE("train", "Trains.", options, 2, help_argv, &status));
    EXPECT_EQ(status, EXIT_DONE);
    EXPECT_NE(testing::internal::GetCapturedStdout().find("passes (default 10)"),
              std::string::npos);
    testing::internal::CaptureStderr();
    EXPECT_FALSE(OPTIONS_PARSE("train", "Trains.", options, 2, bad_argv, &status));
    EXPECT_EQ(status, EXIT_USAGE);
    EXPECT_NE(testing::internal::GetCapturedStderr().find("unknown option --epoch"),
              std::string::npos);
}

} // namespace
