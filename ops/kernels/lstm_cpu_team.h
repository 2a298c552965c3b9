// A team of threads that go through phases together.
#pragma once

#include <atomic>
#include <cstdint>
#include <system_error>
#include <thread>
#include <vector>

namespace rp {

class Team {
  public:
    // Runs body(thread) on up to `wanted` threads, the caller being thread 0, and waits for all.
    // Where the machine refuses more threads, those that started do the work.
    template <typename Body> static void run(int32_t wanted, Team &team, const Body &body) {
        std::vector<std::thread> others;
        others.reserve(static_cast<size_t>(wanted));
        try {
            for (int32_t thread = 1; thread < wanted; ++thread) {
                others.emplace_back([&team, &body, thread] {
                    team.size_.wait(0); // until the team's size is known
                    body(thread);
                });
            }
        } catch (const std::system_error &) {
        }
        team.size_ = static_cast<int32_t>(others.size()) + 1;
        team.size_.notify_all();
        body(0);
        for (std::thread &other : others) {
            other.join();
        }
        team.size_ = 0;
    }

    int32_t size() const { return size_.load(std::memory_order_relaxed); }

    // Returns when every thread of the team has called it: what they wrote before is visible
    // after. Spins for about as long as a short phase, then sleeps.
    void wait() {
        const uint32_t phase = phase_.load(std::memory_order_acquire);
        if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size()) {
            arrived_.store(0, std::memory_order_relaxed);
            phase_.fetch_add(1, std::memory_order_release);
            phase_.notify_all();
            return;
        }
        for (int spin = 0; spin < 2000; ++spin) {
            if (phase_.load(std::memory_order_acquire) != phase) {
                return;
            }
#if defined(__x86_64__)
            __builtin_ia32_pause();
#endif
        }
        phase_.wait(phase, std::memory_order_acquire);
    }

  private:
    std::atomic<int32_t> size_{0}, arrived_{0};
    std::atomic<uint32_t> phase_{0};
};

} // namespace rp
