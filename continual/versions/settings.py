"""The text of a new workspace's continual.toml."""

from __future__ import annotations

from continual.config import Config, ConfigSection


def render_config(config: Config) -> str:
    """Return a `continual.toml` with every setting and its description; settings with their default are comments."""
    lines = ["# Settings of this continual workspace. Commented lines show the defaults."]
    for name, field in Config.model_fields.items():
        section = getattr(config, name)
        if not isinstance(section, ConfigSection):
            mark = "# " if section == field.default else ""
            lines.append(f"{mark}{name} = {_toml(section)}  # {field.description}")
            continue
        lines += ["", f"[{name}]  # {type(section).__doc__}"]
        defaults = type(section)()
        for key, setting in type(section).model_fields.items():
            value = getattr(section, key)
            mark = "# " if value == getattr(defaults, key) else ""
            if value is None:
                lines.append(f"# {key} = ...  # {setting.description}")
            else:
                lines.append(f"{mark}{key} = {_toml(value)}  # {setting.description}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if isinstance(value, ConfigSection):
        return _toml(value.model_dump(exclude_none=True))
    if isinstance(value, list):
        return "[" + ", ".join(_toml(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return str(value)
