// Plays StreamOverlap on simulated streams, in thousands of random interleavings: g++ -std=c++17 -I… this.cpp && ./a.out
// Prints one line a fact, "ok NAME" or "FAILED NAME"; exits 1 on the first failure.
#include "stream_overlap.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <random>
#include <vector>

namespace
{

constexpr int kRanks = 4;

// Streams are queues of work; nothing runs until `play` picks, at random, a stream whose next item may run.
class Simulated
{
public:
    using Stream = int;
    using Event = int;

    int failAt{-1}; // the call that reports an error, counted from 0
    int streams{1}; // stream 0 is the main one
    int events{0};
    int destroyed{0};

    int createStream(Stream* stream)
    {
        *stream = streams++;
        mQueues.resize(static_cast<std::size_t>(streams));
        return failed();
    }

    int createEvent(Event* event)
    {
        *event = events++;
        return failed();
    }

    void destroyStream(Stream)
    {
        ++destroyed;
    }

    void destroyEvent(Event)
    {
        ++destroyed;
    }

    int copy(void* to, void const* from, std::size_t bytes, Stream stream)
    {
        return add(stream, {nullptr, [=] { std::memcpy(to, from, bytes); }});
    }

    int allReduceSum(void* buffer, std::size_t count, Stream stream)
    {
        auto* const values = static_cast<float*>(buffer);
        return add(stream, {nullptr, [=, this] {
                                for (std::size_t index = 0; index < count; ++index)
                                {
                                    values[index] *= kRanks; // every rank holds the same numbers
                                }
                                reducedAt = clock;
                            }});
    }

    int record(Event event, Stream stream)
    {
        int const number = ++mRecorded[static_cast<std::size_t>(event)];
        return add(stream, {nullptr, [=, this] { mDone[static_cast<std::size_t>(event)] = number; }});
    }

    int wait(Stream stream, Event event)
    {
        int const number = mRecorded[static_cast<std::size_t>(event)];
        return add(stream, {[=, this] { return mDone[static_cast<std::size_t>(event)] >= number; }, [] {}});
    }

    void work(Stream stream, std::function<void()> run)
    {
        mQueues.resize(static_cast<std::size_t>(streams));
        mQueues[static_cast<std::size_t>(stream)].push_back({nullptr, std::move(run)});
    }

    bool play(unsigned seed)
    {
        std::mt19937 random(seed);
        for (;;)
        {
            std::vector<int> able;
            bool left = false;
            for (int stream = 0; stream < streams; ++stream)
            {
                auto& queue = mQueues[static_cast<std::size_t>(stream)];
                left = left || !queue.empty();
                if (!queue.empty() && (!queue.front().may || queue.front().may()))
                {
                    able.push_back(stream);
                }
            }
            if (able.empty())
            {
                return !left; // work left that nothing can start is a deadlock
            }
            auto& queue = mQueues[static_cast<std::size_t>(able[random() % able.size()])];
            ++clock;
            queue.front().run();
            queue.pop_front();
        }
    }

    int clock{0};
    int reducedAt{0};

private:
    struct Item
    {
        std::function<bool()> may;
        std::function<void()> run;
    };

    int failed()
    {
        return mCalls++ == failAt ? 700 : 0;
    }

    int add(Stream stream, Item item)
    {
        mQueues.resize(static_cast<std::size_t>(streams));
        mQueues[static_cast<std::size_t>(stream)].push_back(std::move(item));
        return failed();
    }

    std::vector<std::deque<Item>> mQueues{1};
    std::vector<int> mRecorded = std::vector<int>(64);
    std::vector<int> mDone = std::vector<int>(64);
    int mCalls{0};
};

void expect(bool fact, char const* name)
{
    std::printf("%s %s\n", fact ? "ok" : "FAILED", name);
    if (!fact)
    {
        std::exit(1);
    }
}

using Overlap = kraken::StreamOverlap<Simulated>;

} // namespace

int main()
{
    bool rightSums = true;
    bool rightCopies = true;
    bool ended = true;
    int beforeAttention = 0;
    int behindAttention = 0;
    for (unsigned seed = 0; seed < 4000; ++seed)
    {
        Simulated api;
        Overlap overlap(api, 3);
        std::vector<float> x(8), next(8), sum(8), out(8), used(8);
        for (std::size_t i = 0; i < x.size(); ++i)
        {
            x[i] = static_cast<float>(i + 1);
        }
        auto const original = x;
        for (int layer = 1; layer < 3; ++layer)
        {
            int attendedAt = 0;
            bool const last = layer == 2;
            api.work(0, [&x, original] { x = original; });
            overlap.start(layer, x.data(), next.data(), sum.data(), 32, 8, 0);
            api.work(0, [&x] { x.assign(x.size(), -1.0F); }); // TensorRT may give x's memory to something else
            api.work(0, [&] { used = next; });                // the QKV product
            int* const at = new int(0);
            api.work(0, [&api, at] { *at = api.clock; }); // the output projection
            overlap.wait(layer, 0);
            api.work(0, [&] { out = sum; });
            ended = api.play(seed + static_cast<unsigned>(layer)) && ended;
            attendedAt = *at;
            delete at;
            for (std::size_t i = 0; i < x.size(); ++i)
            {
                rightSums = rightSums && out[i] == kRanks * original[i];
                rightCopies = rightCopies && used[i] == original[i];
            }
            if (last)
            {
                (api.reducedAt < attendedAt ? beforeAttention : behindAttention) += 1;
            }
        }
    }
    expect(ended, "no interleaving deadlocks");
    expect(rightSums, "behind the wait the sum is whole in every interleaving");
    expect(rightCopies, "attention reads x as it was, not the sum");
    expect(beforeAttention > 0 && behindAttention > 0, "the sum and attention overlap: either may end first");

    {
        Simulated api;
        Overlap overlap(api, 2);
        float one[1] = {1};
        expect(overlap.wait(0, 0) == kraken::kWaitWithoutStart, "a wait without a start is refused");
        expect(overlap.start(0, one, one, one, 4, 1, 0) == 0, "a start is taken");
        expect(overlap.start(0, one, one, one, 4, 1, 0) == kraken::kStartedTwice, "a second start is refused");
        expect(overlap.wait(0, 0) == 0, "its wait is taken");
        expect(overlap.wait(0, 0) == kraken::kWaitWithoutStart, "a second wait is refused");
        expect(overlap.start(2, one, one, one, 4, 1, 0) == kraken::kNoSuchLayer, "a layer out of range is refused");
        expect(api.streams == 2, "one stream beside the main one serves all layers");
    }
    bool reported = true;
    bool kept = true;
    for (int call = 0; call < 11; ++call)
    {
        Simulated api;
        api.failAt = call;
        Overlap overlap(api, 2);
        float one[1] = {1};
        reported = reported && overlap.start(1, one, one, one, 4, 1, 0) == 700;
        kept = kept && overlap.wait(1, 0) == kraken::kWaitWithoutStart;
    }
    expect(reported, "an error of any call is handed on");
    expect(kept, "a start that failed is not waited for");
    {
        Simulated api;
        {
            Overlap overlap(api, 2);
            float one[1] = {1};
            overlap.start(1, one, one, one, 4, 1, 0);
        }
        expect(api.destroyed == 5, "its stream and events are given back");
    }
    return 0;
}
