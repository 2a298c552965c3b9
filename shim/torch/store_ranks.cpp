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

#include <ATen/ops/empty.h>

#include "guard.h"
#include "torch/process_group.h"

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
        std::string name;
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
        const auto here = store->get(key("here", rank));
        const std::string name(here.begin(), here.end());
        other.name = other.name.empty() ? name : other.name;
        if (name != other.name) {
            bury(rank, "was started anew while the others went on");
        } else if (other.silent_beats > most_silent_beats_) {
            bury(rank, "has been silent for " +
                           std::to_string(most_silent_beats_ * beat_interval.count() / 1000) +
                           " s: it or its machine is dead");
        }
    }
    void bury(int32_t rank, const std::string &why) {
        if (dead_.empty()) {
            dead_ = "rank " + std::to_string(rank) + " (" +
                    others_[static_cast<size_t>(rank)].name + ") " + why +
                    ". Start all ranks again: what is finished is kept";
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
class StoreRanks : public TensorRanks {
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
    int32_t rank() const override { return rank_; }
    int32_t count() const override { return count_; }
    at::Tensor gather(const at::Tensor &own) override;

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
    Error ended_early(int32_t rank) {
        return error(RP_ERROR_RANK,
                     "rank %d (%s) ended early; see its messages. Start all ranks again: what is "
                     "finished is kept",
                     rank, name_of(rank).c_str());
    }
    void blame(); // throws the name of the rank that is dead or has ended, as soon as it is known
    Store open_store(bool host) const;
    void arrive();
    void end(bool answers);

    int32_t rank_, count_, port_;
    std::string address_;
    bool host_; // the store lies in this process
    std::string group_;
    std::chrono::seconds patience_; // until all ranks are here
    int64_t most_silent_beats_;
    std::shared_ptr<Speaker> speaker_;
    std::thread thread_;
    c10::intrusive_ptr<c10d::Backend> tensors_; // made on the first gather
};

Store StoreRanks::open_store(bool host) const {
    c10d::TCPStoreOptions options;
    options.port = static_cast<uint16_t>(port_);
    options.isServer = host;
    options.waitWorkers = false;
    options.timeout = patience_;
    try {
        return c10::make_intrusive<c10d::PrefixStore>(
            "return-predictor/" + group_, c10::make_intrusive<c10d::TCPStore>(address_, options));
    } catch (const std::exception &refused) {
        throw lost(refused.what());
    }
}

StoreRanks::StoreRanks(const rp_ranks_options &options)
    : rank_(options.rank), count_(options.count), port_(options.port), address_(options.address),
      host_(options.rank == 0 && !options.hosted), group_(options.group),
      patience_(options.arrival_seconds),
      most_silent_beats_(std::chrono::seconds(options.silence_seconds) / beat_interval) {
    const Store opened = open_store(host_);
    speaker_ = std::make_shared<Speaker>(opened, Listener(rank_, count_, most_silent_beats_));
    thread_ = std::thread([speaker = speaker_] { speaker->run(); });
    try {
        arrive();
    } catch (const Error &) {
        end(/*answers=*/false);
        throw;
    }
}

// Says that this rank is here and waits for the others.
void StoreRanks::arrive() {
    if (has(key("here", rank_))) {
        throw error(RP_ERROR_RANK,
                    "rank %d has been here before, as %s: the others must start again too", rank_,
                    name_of(rank_).c_str());
    }
    request([rank = rank_](const Store &store) {
        store->set(key("here", rank), bytes(name_of_process()));
    });
    const auto last = std::chrono::steady_clock::now() + patience_;
    for (int32_t rank = 0; rank < count_; ++rank) {
        while (!has(key("here", rank))) {
            if (std::chrono::steady_clock::now() > last) {
                throw error(RP_ERROR_RANK, "rank %d of %d has not come within %d s", rank, count_,
                            static_cast<int>(patience_.count()));
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
                throw ended_early(rank);
            }
            std::this_thread::sleep_for(poll_interval);
        }
    }
}

at::Tensor StoreRanks::gather(const at::Tensor &own) {
    try {
        if (!tensors_) { // with a connection of its own, which may block
            tensors_ = make_process_group(
                c10::make_intrusive<c10d::PrefixStore>("tensors", open_store(/*host=*/false)),
                rank_, count_, (most_silent_beats_ + 2) * beat_interval, own.is_cuda());
        }
        at::Tensor flat = own.detach().flatten();
        flat = tensors_->getBackendName() == "gloo" ? flat.cpu() : flat.contiguous();
        at::Tensor all = at::empty({count_ * flat.numel()}, flat.options());
        tensors_->_allgather_base(all, flat, {})->wait();
        std::vector<int64_t> shape = own.sizes().vec();
        shape.insert(shape.begin(), count_);
        return all.view(shape).to(own.device());
    } catch (const std::exception &failure) {
        blame();
        const std::string text = failure.what();
        throw error(RP_ERROR_RANK, "ranks can't exchange tensors: %s",
                    text.substr(0, text.find('\n')).c_str());
    }
}

void StoreRanks::blame() {
    for (int64_t beats = 0; beats <= most_silent_beats_ + 2; ++beats) {
        check();
        for (int32_t rank = 0; rank < count_; ++rank) {
            if (has(key("left", rank))) {
                throw ended_early(rank);
            }
        }
        std::this_thread::sleep_for(beat_interval);
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
