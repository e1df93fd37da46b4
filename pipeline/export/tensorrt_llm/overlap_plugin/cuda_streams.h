// The stream API on CUDA: one low-priority stream, events without timing, NCCL's all-reduce where its header is.
#pragma once

#include <cstddef>
#include <cuda_runtime.h>

#if __has_include(<nccl.h>)
#include <nccl.h>
#define KRAKEN_HAS_NCCL 1
#else
#define KRAKEN_HAS_NCCL 0
#endif

namespace kraken
{

enum class Type : int
{
    kFloat32,
    kFloat16,
    kBFloat16
};

class CudaStreams
{
public:
    using Stream = cudaStream_t;
    using Event = cudaEvent_t;

    Type type{Type::kFloat16};

    int createStream(Stream* stream)
    {
        int least = 0;    // the numerically greatest: lowest priority
        int greatest = 0;
        if (cudaError_t const error = cudaDeviceGetStreamPriorityRange(&least, &greatest))
        {
            return static_cast<int>(error);
        }
        return static_cast<int>(cudaStreamCreateWithPriority(stream, cudaStreamNonBlocking, least));
    }

    int createEvent(Event* event)
    {
        return static_cast<int>(cudaEventCreateWithFlags(event, cudaEventDisableTiming));
    }

    void destroyStream(Stream stream)
    {
        cudaStreamDestroy(stream);
    }

    void destroyEvent(Event event)
    {
        cudaEventDestroy(event);
    }

    int copy(void* to, void const* from, std::size_t bytes, Stream stream)
    {
        return static_cast<int>(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream));
    }

    int record(Event event, Stream stream)
    {
        return static_cast<int>(cudaEventRecord(event, stream));
    }

    int wait(Stream stream, Event event)
    {
        return static_cast<int>(cudaStreamWaitEvent(stream, event, 0));
    }

    int allReduceSum(void* buffer, std::size_t count, Stream stream);

#if KRAKEN_HAS_NCCL
    ncclComm_t communicator{nullptr};
#endif
};

#if KRAKEN_HAS_NCCL
constexpr int kNcclError = 10000; // NCCL's errors behind CUDA's

inline int CudaStreams::allReduceSum(void* buffer, std::size_t count, Stream stream)
{
    ncclDataType_t const kind
        = type == Type::kFloat32 ? ncclFloat32 : (type == Type::kFloat16 ? ncclFloat16 : ncclBfloat16);
    ncclResult_t const error = ncclAllReduce(buffer, buffer, count, kind, ncclSum, communicator, stream);
    return error == ncclSuccess ? 0 : kNcclError + static_cast<int>(error);
}
#endif

} // namespace kraken
