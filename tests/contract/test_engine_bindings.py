"""Every TensorRT name that the engines use exists in the bindings installed here, with the arguments we give."""

import ast
import re
from pathlib import Path

import pytest

trt = pytest.importorskip("tensorrt_rtx", reason="no TensorRT-RTX wheel for this machine")

PIPELINE = Path(__file__).resolve().parents[2] / "pipeline"
RUNTIME_FILE = PIPELINE / "engines" / "tensorrt_runtime.py"

# what the runtime calls: class, method, and the arguments of one of its overloads as the bindings document them
RUNTIME = [
    ("Runtime", "deserialize_cuda_engine", ["serialized_engine: .*Buffer"]),
    ("ICudaEngine", "create_execution_context", []),
    ("IExecutionContext", "set_communicator", ["communicator: .*Capsule"]),
    ("IExecutionContext", "set_input_shape", ["name: str", "shape: tuple"]),
    ("IExecutionContext", "set_tensor_address", ["name: str", "memory: .*Int"]),
    ("IExecutionContext", "infer_shapes", []),
    ("IExecutionContext", "execute_async_v3", ["stream_handle: .*Int"]),
]
# what the network writer calls
WRITER = [
    ("add_input", ["name: str", "dtype: .*DataType", "shape: .*Dims"]),
    ("add_constant", ["shape: .*Dims", "weights: .*Weights"]),
    ("add_gather", ["input: ", "indices: ", "axis: .*Int"]),
    ("add_elementwise", ["input1: ", "input2: ", "op: "]),
    ("add_normalization_v2", ["input: ", "scale: ", "bias: ", "axesMask: .*Int"]),
    ("add_matrix_multiply", ["input0: ", "op0: ", "input1: ", "op1: "]),
    ("add_slice", ["input: ", "start: .*Dims", "shape: .*Dims", "stride: .*Dims"]),
    ("add_shape", ["input: "]),
    ("add_shuffle", ["input: "]),
    ("add_activation", ["input: ", "type: "]),
    ("add_attention_v2", ["query: ", "key: ", "value: ", "norm_op: ", "causal_kind: "]),
    ("add_dist_collective", ["input: ", "dist_collective_op: ", "reduce_op: ", "root: ", "groups: "]),
    ("mark_output", ["tensor: "]),
]


def overloads(owner, method):
    """Argument lists of a bound method, without self, one a documented overload."""
    text = getattr(getattr(trt, owner), method).__doc__
    return [re.sub(r"^self: [^,]+,? ?", "", found) for found in re.findall(rf"{method}\((self: .*)\) ->", text)]


@pytest.mark.parametrize(("owner", "method", "arguments"), RUNTIME, ids=lambda value: str(value)[:40])
def test_runtime_calls_exist(owner, method, arguments):
    pattern = ".*, ".join(arguments)
    assert any(re.match(pattern, found) for found in overloads(owner, method)), overloads(owner, method)


@pytest.mark.parametrize(("method", "arguments"), WRITER, ids=lambda value: str(value)[:40])
def test_writer_calls_exist(method, arguments):
    found = overloads("INetworkDefinition", method)
    assert any(re.match(".*, ".join(arguments), one) for one in found), found


def test_every_name_taken_from_the_module_is_there():
    """`trt.X.Y` in the sources, for all X and Y."""
    named = set()
    for path in [*(PIPELINE / "export" / "tensorrt").glob("*.py"), RUNTIME_FILE]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute):
                dotted = ast.unparse(node).removeprefix("self.graph.").removeprefix("self.")
                if dotted.startswith("trt.") and re.fullmatch(r"trt(\.\w+)+", dotted):
                    named.add(dotted)
    assert len(named) > 15
    for dotted in sorted(named):
        found = trt
        for part in dotted.split(".")[1:]:
            if part.startswith("__"):
                break
            found = getattr(found, part)  # AttributeError names what is missing


def test_what_the_runtime_reads_as_attributes_is_there():
    called = set()
    for node in ast.walk(ast.parse(RUNTIME_FILE.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if node.value.id == "context":
                called.add(("IExecutionContext", node.attr))
            if node.value.id == "engine" and node.attr.startswith(("create_", "get_tensor")):
                called.add(("ICudaEngine", node.attr))
    assert ("IExecutionContext", "set_communicator") in called
    tested = {(owner, method) for owner, method, _ in RUNTIME}
    for owner, name in called:
        assert hasattr(getattr(trt, owner), name)
        assert (owner, name) in tested, f"{owner}.{name} is used but its arguments are not tested"


def test_communicators_come_before_the_first_run_on_every_rank():
    """The bindings say why: the call blocks until every rank has made it."""
    assert "blocks until every rank" in trt.IExecutionContext.set_communicator.__doc__


def test_loading_without_a_gpu_is_none_not_a_crash():
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    from pipeline.export.tensorrt import module

    logger = module.make_logger(trt)
    assert trt.Runtime(logger).deserialize_cuda_engine(b"no engine at all" * 64) is None
    assert logger.errors
