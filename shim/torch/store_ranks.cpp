#include "torch/store_ranks.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <unistd.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "guard.h"

namespace rp {
namespace {

using Store = c10::intrusive_ptr<c10d::Store>;
constexpr std::chrono::milliseconds beat_interval{500}, poll_interval{20};

std::string name_of_process() {
    char host[256] = "";
    (void)gethostname(host, sizeof host - 1);
    return std::string(host) + ", process " + std::to_string(getpid());
}

std::vector<uint8_t> bytes(const std::string &text) {
    return {text.begin(), text.end()};
}

std::string key(const std::string &what, int32_t rank) {
    return what + '/' + std::to_string(rank);
}

// Whether the others live: each one's key beat/<rank> must change.
//
// Policy: silence is counted in this rank's own beats, not by the clock, so that time in which the
// whole machine was stopped does not count.
class Listener {
  public:
    Listener(int32_t rank, int32_t count, int64_t most_silent_beats)
        : rank_(rank), most_silent_beats_(most_silent_beats), others_(static_cast<size_t>(count)) {}

    void beat(const Store &store) {
        store->set(key("beat", rank_), bytes(std::to_string(++beats_)));
        for (int32_t rank = 0; rank < static_cast<int32_t>(others_.size()); ++rank) {
            if (rank != rank_ && store->check({key("here", rank)}) &&
                !store->check({key("left", rank)})) {
                listen(store, rank);
            }
        }
    }
    const std::string &dead() const { return dead_; } // which, and how it was noticed; "": none

  private:
    struct Other {
        std::vector<uint8_t> beat;
        int64_t silent_beats = 0;
    };

    void listen(const Store &store, int32_t rank) {
        Other &other = others_[static_cast<size_t>(rank)];
        std::vector<uint8_t> now;
        if (store->check({key("beat", rank)})) {
            now = store->get(key("beat", rank));
        }
        other.silent_beats = now == other.beat ? other.silent_beats + 1 : 0;
        other.beat = now;
        if (other.silent_beats > most_silent_beats_ && dead_.empty()) {
            const auto name = store->get(key("here", rank));
            dead_ = "rank " + std::to_string(rank) + " (" + std::string(name.begin(), name.end()) +
                    ") has been silent for " +
                    std::to_string(most_silent_beats_ * beat_interval.count() / 1000) +
                    " s: it or its machine is dead. Start all ranks again: what is finished is "
                    "kept";
        }
    }

    int32_t rank_;
    int64_t most_silent_beats_, beats_ = 0;
    std::vector<Other> others_;
    std::string dead_;
};

// The one thread that speaks with the store: beats, and what it is asked to do in between. When the
// store's machine hangs, so does this thread, and those who wait for an answer go on without.
struct Speaker {
    Store store;
    Listener listener;
    std::mutex mutex; // of what follows
    std::condition_variable asked;
    std::deque<std::function<void()>> requests;
    std::string failure; // a dead rank, or a store that is gone; "": none
    bool stop = false;

    Speaker(Store opened, Listener made) : store(std::move(opened)), listener(std::move(made)) {}

    void run() {
        for (auto next_beat = std::chrono::steady_clock::now();;) {
            std::unique_lock lock(mutex);
            asked.wait_until(lock, next_beat, [this] { return stop || !requests.empty(); });
            if (!requests.empty()) {
                const auto request = std::move(requests.front());
                requests.pop_front();
                lock.unlock();
                request();
            } else if (stop) {
                return;
            } else {
                lock.unlock();
                next_beat = std::chrono::steady_clock::now() + beat_interval;
                beat();
            }
        }
    }

    void beat() {
        std::string trouble;
        try {
            listener.beat(store);
            trouble = listener.dead();
        } catch (const std::exception &gone) {
            trouble = gone.what();
        }
        const std::lock_guard lock(mutex);
        if (failure.empty()) {
            failure = trouble;
        }
    }
};

// Keys of the store: here/<rank> = who it is, beat/<rank>, left/<rank> = it ended in good order,
// at/<place>/<rank>, count/<counter>.
class StoreRanks : public Ranks {
  public:
    explicit StoreRanks(const rp_ranks_options &options);
    ~StoreRanks() override;
    int64_t add(const std::string &counter, int64_t amount) override {
        return request([counter, amount](const Store &store) {
            return store->add("count/" + counter, amount);
        });
    }
    void check() override;
    void wait(const std::string &place) override;

  private:
    // Captures of `body` are copies: it may run when nobody waits for it any more.
    template <typename Body> auto request(Body body) -> decltype(body(Store())) {
        const auto task = std::make_shared<std::packaged_task<decltype(body(Store()))()>>(
            [body, store = speaker_->store] { return body(store); });
        auto answer = task->get_future();
        {
            const std::lock_guard lock(speaker_->mutex);
            speaker_->requests.push_back([task] { (*task)(); });
        }
        speaker_->asked.notify_all();
        for (int64_t silent = 0; silent <= most_silent_beats_; ++silent) {
            if (answer.wait_for(beat_interval) == std::future_status::ready) {
                try {
                    return answer.get();
                } catch (const std::exception &gone) {
                    throw lost(gone.what());
                }
            }
        }
        throw lost("no answer");
    }
    Error lost(const std::string &why) const {
        return error(RP_ERROR_RANK,
                     "the store at %s:%d, which rank 0 or torchrun's agent holds, can't be "
                     "reached (%s): that process or its machine is dead. Start all ranks again: "
                     "what is finished is kept",
                     address_.c_str(), port_, why.substr(0, why.find('\n')).c_str());
    }
    bool has(const std::string &name) {
        return request([name](const Store &store) { return store->check({name}); });
    }
    std::string name_of(int32_t rank) {
        const auto name =
            request([rank](const Store &store) { return store->get(key("here", rank)); });
        return {name.begin(), name.end()};
    }
    void arrive(std::chrono::seconds patience);
    void end(bool answers);

    int32_t rank_, count_, port_;
    std::string address_;
    bool host_; // the store lies in this process
    int64_t most_silent_beats_;
    std::shared_ptr<Speaker> speaker_;
    std::thread thread_;
};

StoreRanks::StoreRanks(const rp_ranks_options &options)
    : rank_(options.rank), count_(options.count), port_(options.port), address_(options.address),
      host_(options.rank == 0 && !options.hosted),
      most_silent_beats_(std::chrono::seconds(options.silence_seconds) / beat_interval) {
    c10d::TCPStoreOptions store;
    store.port = static_cast<uint16_t>(options.port);
    store.isServer = host_;
    store.waitWorkers = false;
    store.timeout = std::chrono::seconds(options.arrival_seconds);
    Store opened;
    try {
        opened = c10::make_intrusive<c10d::PrefixStore>(
            std::string("return-predictor/") + options.group,
            c10::make_intrusive<c10d::TCPStore>(address_, store));
    } catch (const std::exception &refused) {
        throw lost(refused.what());
    }
    speaker_ = std::make_shared<Speaker>(opened, Listener(rank_, count_, most_silent_beats_));
    thread_ = std::thread([speaker = speaker_] { speaker->run(); });
    try {
        arrive(std::chrono::seconds(options.arrival_seconds));
    } catch (const Error &) {
        end(/*answers=*/false);
        throw;
    }
}

// Says that this rank is here and waits for the others.
void StoreRanks::arrive(std::chrono::seconds patience) {
    request([rank = rank_](const Store &store) {
        store->set(key("here", rank), bytes(name_of_process()));
    });
    const auto last = std::chrono::steady_clock::now() + patience;
    for (int32_t rank = 0; rank < count_; ++rank) {
        while (!has(key("here", rank))) {
            if (std::chrono::steady_clock::now() > last) {
                throw error(RP_ERROR_RANK, "rank %d of %d has not come within %d s", rank, count_,
                            static_cast<int>(patience.count()));
            }
            std::this_thread::sleep_for(poll_interval);
        }
    }
}

void StoreRanks::check() {
    const std::lock_guard lock(speaker_->mutex);
    const std::string &failure = speaker_->failure;
    if (!failure.empty()) {
        throw failure.rfind("rank ", 0) == 0 ? error(RP_ERROR_RANK, "%s", failure.c_str())
                                             : lost(failure);
    }
}

void StoreRanks::wait(const std::string &place) {
    request([at = key("at/" + place, rank_)](const Store &store) { store->set(at, bytes("1")); });
    for (int32_t rank = 0; rank < count_; ++rank) {
        const std::string at = key("at/" + place, rank);
        while (!has(at)) {
            check();
            if (has(key("left", rank)) && !has(at)) {
                throw error(RP_ERROR_RANK,
                            "rank %d (%s) ended early; see its messages. Start all ranks again: "
                            "what is finished is kept",
                            rank, name_of(rank).c_str());
            }
            std::this_thread::sleep_for(poll_interval);
        }
    }
}

// The process that holds the store ends last, or the others would take it for dead.
StoreRanks::~StoreRanks() {
    bool answers = true;
    try {
        request([left = key("left", rank_)](const Store &store) { store->set(left, bytes("1")); });
        int64_t polls = most_silent_beats_ * (beat_interval / poll_interval);
        for (int32_t rank = 0; host_ && rank < count_; ++rank) {
            for (; polls > 0 && !has(key("left", rank)); --polls) {
                std::this_thread::sleep_for(poll_interval);
            }
        }
    } catch (const Error &) { // the store is gone, and with it everyone to tell
        answers = false;
    }
    end(answers);
}

void StoreRanks::end(bool answers) {
    {
        const std::lock_guard lock(speaker_->mutex);
        speaker_->stop = true;
    }
    speaker_->asked.notify_all();
    if (answers) {
        thread_.join();
    } else {
        thread_.detach(); // it may wait for a machine that hangs; it owns what it uses
    }
}

} // namespace

std::unique_ptr<Ranks> make_ranks(const rp_ranks_options &options) {
    return std::make_unique<StoreRanks>(options);
}

} // namespace rp
