#include <gtest/gtest.h>

#include <filesystem>

#include <unistd.h>

#include "temporary_folder.h"

extern "C" {
#include "base/file.h"
}

namespace {

TEST(File, written_reads_back_the_same_bytes) {
    TemporaryFolder folder;
    std::string bytes("a\0b\n", 4);
    error error = {""};
    ASSERT_TRUE(file_write(folder.path("x").c_str(), bytes.data(), bytes.size(), &error));
    char *data = nullptr;
    size_t size = 0;
    ASSERT_TRUE(file_read(folder.path("x").c_str(), &data, &size, &error)) << error.message;
    EXPECT_EQ(std::string(data, size), bytes);
    free(data);
}

TEST(File, replaced_leaves_no_temporary_file) {
    TemporaryFolder folder;
    folder.write("x", "old");
    error error = {""};
    ASSERT_TRUE(file_write(folder.path("x").c_str(), "new", 3, &error));
    EXPECT_EQ(folder.read("x"), "new");
    auto files = std::filesystem::directory_iterator(folder.path());
    EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(File, missing_names_the_path_and_reason) {
    error error = {""};
    char *data = nullptr;
    size_t size = 0;
    EXPECT_FALSE(file_read("/nowhere/x", &data, &size, &error));
    EXPECT_STREQ(error.message, "/nowhere/x: can't be opened: No such file or directory");
}

TEST(File, folder_in_the_way_is_not_replaced) {
    TemporaryFolder folder;
    std::filesystem::create_directory(folder.path("x"));
    error error = {""};
    EXPECT_FALSE(file_write(folder.path("x").c_str(), "new", 3, &error));
    EXPECT_NE(std::string(error.message).find("not a regular file"), std::string::npos);
}

TEST(File, full_disk_behind_standard_output_is_an_error) {
    if (access("/dev/full", W_OK) != 0)
        GTEST_SKIP() << "no /dev/full here";
    error error = {""};
    text text = {};
    text_append_string(&text, "x");
    FILE *saved = stdout;
    stdout = fopen("/dev/full", "w");
    EXPECT_FALSE(file_print_text(&text, &error));
    fclose(stdout);
    stdout = saved;
    EXPECT_NE(std::string(error.message).find("No space left"), std::string::npos);
    text_free(&text);
}

} // namespace
