"""exec's --cgroup arguments → places below the container's cgroup. Pure."""

from ocimig.runtime.errors import NoSubCgroup


def subgroups(arguments: "list[str]") -> "dict[str, str]":
    """Controller → path below; "" stands for all controllers. Form: [CONTROLLER[,CONTROLLER]:]PATH."""
    found: dict[str, str] = {}
    for argument in arguments:
        names, colon, path = argument.partition(":")
        if not colon:
            if len(arguments) > 1:
                raise NoSubCgroup(text=argument, reason="missing <controller>: prefix")
            return {"": argument}
        for name in names.split(","):
            if not name:
                raise NoSubCgroup(text=argument, reason="empty <controller> prefix")
            if name in found:
                reason = f"controller {name} specified multiple times"
                raise NoSubCgroup(text=argument, reason=reason)
            found[name] = path
    return found


def inside(path: str, below: str) -> str:
    """The path of a part below a cgroup. Raises NoSubCgroup where dots lead out of it."""
    names = [name for name in below.split("/") if name not in {"", "."}]
    if ".." in names:
        raise NoSubCgroup(text=below, reason="bad sub cgroup path")
    return "/".join([path, *names])
