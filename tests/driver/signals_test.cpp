#include <gtest/gtest.h>

#include <csignal>

extern "C" {
#include "base/signals.h"
}

// oneDNN's generated code keeps data far below the stack pointer: a handler on that stack overwrote
// it, and a stopped training ended in a corrupted heap.
TEST(Signals, interrupt_is_noted_on_a_stack_of_its_own) {
    signals_watch();
    struct sigaction action = {};
    for (const int number : {SIGINT, SIGTERM}) {
        ASSERT_EQ(sigaction(number, nullptr, &action), 0);
        EXPECT_TRUE(action.sa_flags & SA_ONSTACK) << number;
    }
    stack_t stack = {};
    ASSERT_EQ(sigaltstack(nullptr, &stack), 0);
    EXPECT_FALSE(stack.ss_flags & SS_DISABLE);
    EXPECT_FALSE(signals_received());
    raise(SIGINT);
    EXPECT_TRUE(signals_received());
}
