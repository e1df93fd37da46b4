// The stream logic on CUDA, compiled wherever nvcc is: proves that CudaStreams fits StreamOverlap.
#include "cuda_streams.h"
#include "stream_overlap.h"

namespace kraken
{

#if KRAKEN_HAS_NCCL
template class StreamOverlap<CudaStreams>;
#else
// Without NCCL's header one rank stands alone: its sum is what it put in.
int CudaStreams::allReduceSum(void*, std::size_t, Stream)
{
    return 0;
}

template class StreamOverlap<CudaStreams>;
#endif

} // namespace kraken
