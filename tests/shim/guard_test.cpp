// The one wall between exceptions and C.
#include "guard.h"

#include <gtest/gtest.h>

#include <stdexcept>

#include "rp/rp.h"

TEST(Guard, unknown_exception_becomes_an_internal_error) {
    EXPECT_EQ(rp::guard([] { throw 42; }), RP_ERROR_INTERNAL);
    EXPECT_STREQ(rp_last_error(), "an unknown exception was thrown");
}

TEST(Guard, standard_exception_keeps_its_message) {
    EXPECT_EQ(rp::guard([] { throw std::runtime_error("reason"); }), RP_ERROR_INTERNAL);
    EXPECT_STREQ(rp_last_error(), "reason");
}

TEST(Guard, exhausted_memory_has_a_status_of_its_own) {
    EXPECT_EQ(rp::guard([] { throw std::bad_alloc(); }), RP_ERROR_MEMORY);
}

TEST(Guard, error_keeps_status_and_message) {
    EXPECT_EQ(rp::guard([] { throw rp::error(RP_ERROR_DEVICE, "%s", "lost"); }), RP_ERROR_DEVICE);
    EXPECT_STREQ(rp_last_error(), "lost");
}
