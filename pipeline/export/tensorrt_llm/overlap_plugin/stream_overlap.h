// When the sum of the ways starts, and who waits for it: the order of streams and events, and nothing else.
// Templated over the stream API, so that the same lines run on CUDA and in a test without a GPU.
//
// Paper, section 4: one low-priority stream; the all-reduce of the previous layer starts just before the QKV
// product and is waited for behind the output projection; two extra copies are its cost. Here there are three: TensorRT
// gives the wait an output of its own, which the plugin fills.
#pragma once

#include <cstddef>
#include <vector>

namespace kraken
{

// Results of start and wait: zero, an error of the stream API (positive), or one of these.
enum Misuse : int
{
    kWaitWithoutStart = -1, // a wait for a layer whose sum was not started
    kStartedTwice = -2,     // a second start of a layer before its wait
    kNoSuchLayer = -3
};

// Api: Stream, Event types; createStream(Stream*), createEvent(Event*), destroyStream, destroyEvent,
// copy(to, from, bytes, Stream), allReduceSum(buffer, count, Stream), record(Event, Stream), wait(Stream, Event);
// each of the last six returns 0 or a positive error.
template <class Api>
class StreamOverlap
{
public:
    StreamOverlap(Api& api, int layers)
        : mApi(api)
        , mSlots(static_cast<std::size_t>(layers))
    {
    }

    StreamOverlap(StreamOverlap const&) = delete;
    StreamOverlap& operator=(StreamOverlap const&) = delete;

    ~StreamOverlap()
    {
        if (!mReady)
        {
            return;
        }
        for (auto& slot : mSlots)
        {
            mApi.destroyEvent(slot.made);
            mApi.destroyEvent(slot.summed);
        }
        mApi.destroyStream(mSide);
    }

    // Begin summing x (bytes, count elements) into sum; next is a copy of x for what must be launched behind.
    // Both copies run on the main stream: x may be reused by the caller as soon as they are done, and sum, which
    // lives until wait, is reduced in place.
    int start(int layer, void const* x, void* next, void* sum, std::size_t bytes, std::size_t count,
        typename Api::Stream main)
    {
        if (layer < 0 || layer >= static_cast<int>(mSlots.size()))
        {
            return kNoSuchLayer;
        }
        if (int const error = prepare())
        {
            return error;
        }
        Slot& slot = mSlots[static_cast<std::size_t>(layer)];
        if (slot.underWay)
        {
            return kStartedTwice;
        }
        int error = mApi.copy(sum, x, bytes, main);
        error = error ? error : mApi.record(slot.made, main);
        error = error ? error : mApi.wait(mSide, slot.made);
        error = error ? error : mApi.allReduceSum(sum, count, mSide);
        error = error ? error : mApi.record(slot.summed, mSide);
        error = error ? error : mApi.copy(next, x, bytes, main);
        slot.underWay = error == 0;
        return error;
    }

    // Hold the main stream until the layer's sum is there.
    int wait(int layer, typename Api::Stream main)
    {
        if (layer < 0 || layer >= static_cast<int>(mSlots.size()))
        {
            return kNoSuchLayer;
        }
        Slot& slot = mSlots[static_cast<std::size_t>(layer)];
        if (!slot.underWay)
        {
            return kWaitWithoutStart;
        }
        slot.underWay = false;
        return mApi.wait(main, slot.summed);
    }

private:
    struct Slot
    {
        typename Api::Event made{};
        typename Api::Event summed{};
        bool underWay{false};
    };

    int prepare()
    {
        if (mReady)
        {
            return 0;
        }
        int error = mApi.createStream(&mSide);
        for (auto& slot : mSlots)
        {
            error = error ? error : mApi.createEvent(&slot.made);
            error = error ? error : mApi.createEvent(&slot.summed);
        }
        mReady = error == 0;
        return error;
    }

    Api& mApi;
    std::vector<Slot> mSlots;
    typename Api::Stream mSide{};
    bool mReady{false};
};

} // namespace kraken
