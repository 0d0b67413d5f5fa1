"""The config, read once: a file, a variant, the flags; checked knob by knob; frozen.

`configs/base.py` lists every knob with its unit and reason, `knobs.py` gives each its type.
"""

import ast
import dataclasses
import difflib
import importlib.util
import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from seirenes_jax.errors import ConfigError
from seirenes_jax.knobs import CHOICES, FREE_ON_RESUME, Settings


def load(spec: str, overrides: Sequence[str] = ()) -> tuple[Settings, ConfigDict]:
    """Settings of `configs/X.py[:variant]` under `path=value` overrides.

    >>> settings, _ = load("configs/tiny.py", ["optimizer.lr=1e-4"])
    """
    config = read_file(spec)
    for override in overrides:
        path, _, value = override.partition("=")
        override_knob(config, path, value)
    return build(config), config


def read_file(spec: str) -> ConfigDict:
    """Run a config file's `get_config(variant)`; `spec` is PATH or PATH:VARIANT."""
    path, _, variant = spec.partition(":")
    file = Path(path)
    if not file.is_file():
        raise ConfigError(f"--config: no such file: got {path!r}; wanted one like configs/tiny.py")
    module_spec = importlib.util.spec_from_file_location(f"config_{file.stem}", file)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"--config: {path!r} is no Python file; wanted one like configs/tiny.py")
    module = importlib.util.module_from_spec(module_spec)
    module_spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise ConfigError(f"--config: {path} defines no get_config(); see configs/tiny.py")
    known = getattr(module, "VARIANTS", ())
    if variant and variant not in known:
        raise ConfigError(
            f"--config: {path} has no variant {variant!r}; it has {', '.join(known) or 'none'}"
        )
    config: ConfigDict = module.get_config(variant) if known else module.get_config()
    return config


def override_knob(config: ConfigDict, path: str, text: str) -> None:
    """Set one knob from a flag's text, by the type the knob already has."""
    known = dict(leaves(config))
    if path not in known:
        raise ConfigError(f"--config.{path}: no such knob.{_nearest(path, known)}")
    node = config
    *parents, last = path.split(".")
    for parent in parents:
        node = node[parent]
    node[last] = _parse(path, text, known[path])


def leaves(config: Mapping[str, Any] | ConfigDict, prefix: str = "") -> list[tuple[str, Any]]:
    """Every knob as (dotted path, value), in order of the file."""
    found: list[tuple[str, Any]] = []
    for key, value in config.items():
        if isinstance(value, (ConfigDict, Mapping)):
            found += leaves(value, f"{prefix}{key}.")
        else:
            found.append((prefix + key, value))
    return found


def _nearest(path: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(path, known, n=1, cutoff=0.4)
    by_leaf = [k for k in known if k.split(".")[-1] == path.split(".")[-1]]
    names = by_leaf[:1] or close
    return f" Did you mean --config.{names[0]}?" if names else " See configs/base.py for all knobs."


def _parse(path: str, text: str, old: object) -> object:
    wanted = type(old).__name__
    try:
        if isinstance(old, bool):
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if isinstance(old, int):
            return int(text.replace("_", ""))
        if isinstance(old, float):
            return float(text)
        if isinstance(old, str):
            return text
        if isinstance(old, tuple):
            return _parse_tuple(text)
    except (KeyError, ValueError, SyntaxError):
        pass
    raise ConfigError(
        f"--config.{path}: got {text!r}; wanted a value of type {wanted}, like {old!r}"
    )


def _parse_tuple(text: str) -> tuple[object, ...]:
    if text.strip() in ("", "()"):
        return ()
    if text.strip().startswith(("(", "[")):
        return tuple(ast.literal_eval(text.strip()))
    return tuple(int(p) if p.strip().lstrip("-").isdigit() else p.strip() for p in text.split(","))


def build(config: ConfigDict) -> Settings:
    """The frozen settings of a config, every knob present, known and of its type."""
    settings: Settings = _build(Settings, config, "")
    for path, allowed in CHOICES.items():
        got = lookup(settings, path)
        if got not in allowed:
            raise ConfigError(f"--config.{path}: got {got!r}; wanted one of {', '.join(allowed)}")
    return settings


def _build(kind: Any, node: Any, path: str) -> Any:
    if is_dataclass(kind):
        names = {f.name for f in fields(kind)}
        where = path or "the config"
        for key in node:
            if key not in names:
                near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigError(f"{where}: unknown knob {key!r}.{hint}")
        hints = typing.get_type_hints(kind)
        values = {}
        for f in fields(kind):
            if f.name not in node:
                raise ConfigError(
                    f"{where}: knob {f.name!r} is missing; configs/base.py has them all"
                )
            values[f.name] = _build(hints[f.name], node[f.name], f"{path}.{f.name}".lstrip("."))
        return typing.cast(Any, kind)(**values)
    origin = typing.get_origin(kind)
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        if isinstance(node, (tuple, list)):
            return tuple(_build(inner, value, path) for value in node)
    elif origin is not None and issubclass(origin, Mapping):
        inner = typing.get_args(kind)[1]
        mapping = {str(key): _build(inner, value, f"{path}.{key}") for key, value in node.items()}
        return types.MappingProxyType(mapping)
    elif kind is float and isinstance(node, (int, float)) and not isinstance(node, bool):
        return float(node)
    elif isinstance(node, kind) and not (kind is int and isinstance(node, bool)):
        return node
    name = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"--config.{path}: got {node!r}; wanted {name}")


def lookup(settings: object, path: str) -> Any:
    """The value of a dotted knob."""
    for part in path.split("."):
        settings = settings[part] if isinstance(settings, Mapping) else getattr(settings, part)
    return settings


def to_json(config: ConfigDict) -> str:
    """The config as stored in a run folder."""
    return json.dumps(config.to_dict(), indent=2, sort_keys=True) + "\n"


def refuse_changes(stored: Mapping[str, Any], config: ConfigDict) -> None:
    """A resumed run must be the same run: name every knob that may not differ and does."""
    old = {k: _plain(v) for k, v in leaves(stored)}
    new = {k: _plain(v) for k, v in leaves(config)}
    changed = [
        f"  {path}: stored {old.get(path)!r}, asked {new.get(path)!r}"
        for path in sorted(old.keys() | new.keys())
        if old.get(path) != new.get(path)
        and not any(path == free or path.startswith(free + ".") for free in FREE_ON_RESUME)
    ]
    if changed:
        raise ConfigError(
            "this run folder holds a run of another config:\n" + "\n".join(changed)
            + "\nUse the stored values, another --workdir, or --fork=NEWDIR to go on from here "
            "under the new ones."
        )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def section(settings: Any) -> dict[str, Any]:
    """A section as plain JSON-able values (for hashes and reports)."""
    def plain(value: Any) -> Any:
        if is_dataclass(value) and not isinstance(value, type):
            return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
        if isinstance(value, Mapping):
            return {k: plain(v) for k, v in value.items()}
        return list(value) if isinstance(value, tuple) else value

    return typing.cast(dict[str, Any], plain(settings))
