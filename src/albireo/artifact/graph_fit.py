"""Whether a graph from a file is one that the engine can run with a given config, beyond being a legal graph.

Called by api/ before a graph is compiled: kernels take the numbers of a program at their word, so what would make one
read outside its memory is refused here. Does not know kernels.
"""

from __future__ import annotations

from albireo.errors import Corrupt, VersionMismatch
from albireo.graph.builder import GraphBuilder
from albireo.graph.node import Graph, Node, TensorType, Value
from albireo.graph.op_numbers import RECURRENT, TOP_LOGITS
from albireo.models.config import ModelConfig

#: Ops whose kernels look their rows up in the step: op -> a role, and the symbol its rows are counted by.
_ROWS = {
    "rope": ("x", "T"),
    "kv_write": ("k", "T"),
    "attention": ("q", "T"),
    "choose_keys": ("q", "T"),
    "top_logits": ("logits", "G"),
}
_ACTIVATIONS = ("x", "gates", "dt", "bc")
_ROWS |= {op: ("x", "T") for op in RECURRENT}


def check_fit(graph: Graph, config: ModelConfig, where: str) -> None:
    """Inputs and outputs are the engine's, token ids index whole tables, and layers agree on the KV cache.

    Raises: Corrupt naming what does not fit.
    """
    builder = GraphBuilder()
    inputs = builder.graph.inputs
    if config.blocks.num_token_types:
        inputs |= {"token_types": builder.token_types}
    if {name: v.type for name, v in graph.inputs.items()} != {name: v.type for name, v in inputs.items()}:
        raise Corrupt(f"{where}: inputs are not {', '.join(inputs)}")
    if any(name != value.name for name, value in graph.inputs.items()):
        raise Corrupt(f"{where}: an input has another name than its value")
    _check_outputs(graph, config, where)
    for node in graph.nodes:
        problem = _node_problem(graph, config, node)
        if problem:
            raise Corrupt(f"{where}: {node.origin or node.op}: {problem}")


def _check_outputs(graph: Graph, config: ModelConfig, where: str) -> None:
    wanted = {
        "logits": TensorType("float32", ("R", config.num_logits)),
        "top_ids": TensorType("int32", ("G", TOP_LOGITS)),
        "top_values": TensorType("float32", ("G", TOP_LOGITS)),
        "kv": TensorType("kv", ()),
    }
    if config.pooling is not None:
        wanted = {"hidden": TensorType("float32", ("R", config.pooled_width)), "kv": wanted["kv"]}
    if set(graph.outputs) != set(wanted):
        raise Corrupt(f"{where}: outputs are {sorted(graph.outputs)}, wanted {', '.join(sorted(wanted))}")
    for name, value in graph.outputs.items():
        is_unwritten = value is graph.inputs["kv"] and not config.cached_layers
        if value.type != wanted[name] or (value.producer is None and not is_unwritten):
            raise Corrupt(f"{where}: output {name} is {value.type}, config.json implies {wanted[name]}")
    if config.is_choosing and all(node.op != "choose_keys" for node in graph.nodes):
        # of 2.23 and before, which computed such models for texts that see all
        raise VersionMismatch(
            f"{where}: was written before models of this kind chose which positions they see; build the engine "
            "directory again: albireo build MODEL -o DIRECTORY --force"
        )
    writers = sum(node.op == "kv_write" for node in graph.nodes)
    cached = len(config.kv_shapes)
    if writers != cached:
        raise Corrupt(f"{where}: {writers} ops write KV caches, config.json says {cached}")


def _node_problem(graph: Graph, config: ModelConfig, node: Node) -> str:
    if node.op == "embed":
        table = node.inputs["table"]
        if node.inputs["ids"] is graph.inputs["positions"]:
            longest = config.max_position_embeddings
            fits = _is_table(table, longest)
            return "" if fits else f"a table of {table.type} is read by position, config.json says {longest} positions"
        if node.inputs["ids"] is graph.inputs.get("token_types"):
            types, tasks = config.blocks.num_token_types, config.blocks.num_tasks
            # that of tasks has a row for each type, and those that are read by none
            fits = _is_table(table, types) or (tasks > 0 and _is_table(table, types + tasks))
            return "" if fits else f"a table of {table.type} is read by type, there are {types}"
        if node.inputs["ids"] is not graph.inputs["token_ids"] or not _is_table(table, config.vocab_size):
            return f"a table of {table.type} is read, config.json says vocab_size {config.vocab_size}"
    if node.op == "gather_rows":
        rows = node.inputs["rows"]
        if rows is not graph.inputs["logit_rows"] and rows is not graph.inputs["top_rows"]:
            return f"rows are picked by {rows}, wanted logit_rows or top_rows"
        if node.inputs["x"].type.dims[0] != "T":
            return f"rows are picked from {node.inputs['x'].type}, wanted T rows"
    if node.op == "rope" and node.inputs["positions"] is not graph.inputs["positions"]:
        return f"positions are {node.inputs['positions']}"
    if node.op in _ROWS:
        role, symbol = _ROWS[node.op]
        if node.inputs[role].type.dims[0] != symbol:
            return f"{role} is {node.inputs[role].type}, wanted {symbol} rows, which the kernel reads the step for"
    if node.op in ("kv_write", "attention", "choose_keys"):
        shape = (node.attrs.get("num_kv_heads", 1), node.attrs["head_dim"])
        if not config.kv_shapes:
            return "it has attention, config.json says that no layer does"
        wanted = config.kv_shapes[min(node.attrs["layer"], len(config.kv_shapes) - 1)]
        if shape != wanted:
            return f"{shape[0]} KV heads of {shape[1]}, config.json says {wanted[0]} of {wanted[1]}"
        every = config.kv_every[node.attrs["layer"]] if node.attrs["layer"] < len(config.kv_every) else 1
        if node.attrs.get("every", 1) != every:
            return f"entries are of {node.attrs.get('every', 1)} positions, config.json says {every}"
    if node.op == "route" and "chosen" in node.inputs:
        source = node.inputs["chosen"].producer
        return "" if source is not None and source.op == "embed" else f"{node.inputs['chosen']} is no row of a table"
    if "chosen" in node.inputs:
        source = node.inputs["chosen"].producer
        if source is None or source.op != "choose_keys":
            return f"{node.inputs['chosen']} is no choice of positions"
        lists = node.attrs["num_kv_heads"] if node.attrs.get("own_lists") else 1
        if lists != (source.attrs["num_heads"] if "block" in source.attrs else 1):
            return f"{node.inputs['chosen']} are not {lists} lists of positions"
    if node.op in RECURRENT and not all(v.is_constant for role, v in node.inputs.items() if role not in _ACTIVATIONS):
        return "its weights are no constants"
    if node.op in ("linear", "expert_linear") and not node.inputs["weight"].is_constant:
        return "the weight of a linear is no constant"
    if node.op == "expert_linear":
        chosen = node.inputs["ids"].producer
        choices = node.attrs["num_experts"] + (config.experts.giving_back if config.experts is not None else 0)
        if chosen is None or chosen.op != "route" or chosen.inputs["x"].type.dims[1] != choices:
            return f"{node.inputs['ids']} is no choice among {node.attrs['num_experts']} experts"
    if node.op == "all_reduce" or "chunks" in node.attrs:
        return "it is cut for ranks already; what is stored is the graph of the whole model"
    return ""


def _is_table(value: Value, rows: int) -> bool:
    return value.is_constant and len(value.type.dims) == 2 and value.type.dims[0] == rows
