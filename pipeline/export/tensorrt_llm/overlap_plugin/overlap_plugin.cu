// TensorRT plugins around StreamOverlap: KrakenSumStart (x -> x again, sum on its way) and
// KrakenSumWait (sum on its way, what must be launched first -> sum). For TensorRT 10 (TensorRT-LLM 0.12 to 1.2.1).
//
// TensorRT orders one stream by data: the QKV product reads Start's first output, so Start is launched before it;
// Wait reads the output projection's result, so it is launched behind. Both share one StreamOverlap a process.
#include "cuda_streams.h"
#include "stream_overlap.h"

#include <NvInfer.h>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>

#if !KRAKEN_HAS_NCCL
#error "the plugin needs nccl.h"
#endif

using namespace nvinfer1;

namespace kraken
{
namespace
{

constexpr int kMaxLayers = 256;
char const* const kNamespace = "kraken";
char const* const kVersion = "1";

struct Process
{
    CudaStreams streams;
    StreamOverlap<CudaStreams> overlap{streams, kMaxLayers};
    std::mutex mutex;
};

Process& process()
{
    static auto* const one = new Process; // never destroyed: CUDA may be gone before static destructors run
    return *one;
}

std::size_t elements(Dims const& dims)
{
    std::size_t count = 1;
    for (int axis = 0; axis < dims.nbDims; ++axis)
    {
        count *= static_cast<std::size_t>(dims.d[axis]);
    }
    return count;
}

std::size_t bytesOf(DataType type)
{
    return type == DataType::kFLOAT ? 4 : 2;
}

class SumPlugin : public IPluginV3, public IPluginV3OneCore, public IPluginV3OneBuild, public IPluginV3OneRuntime
{
public:
    SumPlugin(bool starts, int layer, bool building)
        : mStarts(starts)
        , mLayer(layer)
        , mBuilding(building)
    {
    }

    IPluginCapability* getCapabilityInterface(PluginCapabilityType type) noexcept override
    {
        switch (type)
        {
        case PluginCapabilityType::kCORE: return static_cast<IPluginV3OneCore*>(this);
        case PluginCapabilityType::kBUILD: return static_cast<IPluginV3OneBuild*>(this);
        case PluginCapabilityType::kRUNTIME: return static_cast<IPluginV3OneRuntime*>(this);
        }
        return nullptr;
    }

    IPluginV3* clone() noexcept override
    {
        return new SumPlugin(mStarts, mLayer, mBuilding);
    }

    AsciiChar const* getPluginName() const noexcept override
    {
        return mStarts ? "KrakenSumStart" : "KrakenSumWait";
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

    int32_t getNbOutputs() const noexcept override
    {
        return mStarts ? 2 : 1;
    }

    int32_t configurePlugin(
        DynamicPluginTensorDesc const*, int32_t, DynamicPluginTensorDesc const*, int32_t) noexcept override
    {
        return 0;
    }

    bool supportsFormatCombination(
        int32_t position, DynamicPluginTensorDesc const* tensors, int32_t, int32_t) noexcept override
    {
        PluginTensorDesc const& here = tensors[position].desc;
        bool const known
            = here.type == DataType::kFLOAT || here.type == DataType::kHALF || here.type == DataType::kBF16;
        return here.format == TensorFormat::kLINEAR && known && here.type == tensors[0].desc.type;
    }

    int32_t getOutputDataTypes(
        DataType* outputs, int32_t count, DataType const* inputs, int32_t) const noexcept override
    {
        for (int32_t index = 0; index < count; ++index)
        {
            outputs[index] = inputs[0];
        }
        return 0;
    }

    int32_t getOutputShapes(DimsExprs const* inputs, int32_t, DimsExprs const*, int32_t, DimsExprs* outputs,
        int32_t count, IExprBuilder&) noexcept override
    {
        for (int32_t index = 0; index < count; ++index)
        {
            outputs[index] = inputs[0];
        }
        return 0;
    }

    int32_t onShapeChange(PluginTensorDesc const*, int32_t, PluginTensorDesc const*, int32_t) noexcept override
    {
        return 0;
    }

    int32_t enqueue(PluginTensorDesc const* inputs, PluginTensorDesc const*, void const* const* in, void* const* out,
        void*, cudaStream_t stream) noexcept override
    {
        if (mBuilding) // the builder times plugins on one rank, out of order and again and again: no peers, no sum
        {
            return 0;
        }
        std::size_t const count = elements(inputs[0].dims);
        std::size_t const bytes = count * bytesOf(inputs[0].type);
        Process& shared = process();
        std::lock_guard<std::mutex> const lock(shared.mutex);
        if (mStarts)
        {
            shared.streams.type = inputs[0].type == DataType::kFLOAT
                ? Type::kFloat32
                : (inputs[0].type == DataType::kHALF ? Type::kFloat16 : Type::kBFloat16);
            return shared.overlap.start(mLayer, in[0], out[0], out[1], bytes, count, stream);
        }
        int const error = shared.overlap.wait(mLayer, stream);
        return error ? error : shared.streams.copy(out[0], in[0], bytes, stream);
    }

    IPluginV3* attachToContext(IPluginResourceContext*) noexcept override
    {
        return clone();
    }

    PluginFieldCollection const* getFieldsToSerialize() noexcept override
    {
        mField = PluginField{"layer", &mLayer, PluginFieldType::kINT32, 1};
        mFields = PluginFieldCollection{1, &mField};
        return &mFields;
    }

private:
    bool mStarts;
    int32_t mLayer;
    bool mBuilding;
    PluginField mField{};
    PluginFieldCollection mFields{};
};

template <bool starts>
class SumCreator : public IPluginCreatorV3One
{
public:
    IPluginV3* createPlugin(
        AsciiChar const*, PluginFieldCollection const* fields, TensorRTPhase phase) noexcept override
    {
        for (int32_t index = 0; fields != nullptr && index < fields->nbFields; ++index)
        {
            PluginField const& field = fields->fields[index];
            if (std::strcmp(field.name, "layer") == 0 && field.type == PluginFieldType::kINT32 && field.data != nullptr)
            {
                return new SumPlugin(
                    starts, *static_cast<int32_t const*>(field.data), phase == TensorRTPhase::kBUILD);
            }
        }
        return nullptr;
    }

    PluginFieldCollection const* getFieldNames() noexcept override
    {
        return &mFields;
    }

    AsciiChar const* getPluginName() const noexcept override
    {
        return starts ? "KrakenSumStart" : "KrakenSumWait";
    }

    AsciiChar const* getPluginVersion() const noexcept override
    {
        return kVersion;
    }

    AsciiChar const* getPluginNamespace() const noexcept override
    {
        return kNamespace;
    }

private:
    PluginField mField{"layer", nullptr, PluginFieldType::kINT32, 1};
    PluginFieldCollection mFields{1, &mField};
};

struct Registration
{
    SumCreator<true> start;
    SumCreator<false> wait;

    Registration()
    {
        getPluginRegistry()->registerCreator(start, kNamespace);
        getPluginRegistry()->registerCreator(wait, kNamespace);
    }
};

Registration const registration;

} // namespace
} // namespace kraken

// What the process that runs an engine calls before its first forward, on every rank at the same time.
extern "C" int kraken_unique_id_bytes()
{
    return static_cast<int>(sizeof(ncclUniqueId));
}

extern "C" int kraken_unique_id(char* out)
{
    ncclUniqueId id;
    ncclResult_t const error = ncclGetUniqueId(&id);
    std::memcpy(out, &id, sizeof(id));
    return static_cast<int>(error);
}

extern "C" int kraken_join(char const* bytes, int rank, int size)
{
    ncclUniqueId id;
    std::memcpy(&id, bytes, sizeof(id));
    return static_cast<int>(ncclCommInitRank(&kraken::process().streams.communicator, size, id, rank));
}
