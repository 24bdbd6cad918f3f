"""config.json as types, for the checker and the reader only: at run time a spec is the dict that was read.

Runtime specification 1.3. `validate.load` hands out documents of this shape.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypedDict

    class Box(TypedDict, total=False):
        """A terminal's size in characters."""

        height: int
        width: int

    class User(TypedDict, total=False):
        """Who runs the process, as the container counts ids."""

        uid: int
        gid: int
        umask: int
        additionalGids: list[int]
        username: str

    class Capabilities(TypedDict, total=False):
        """The five sets by name."""

        bounding: list[str]
        effective: list[str]
        inheritable: list[str]
        permitted: list[str]
        ambient: list[str]

    class Rlimit(TypedDict, total=False):
        """One resource limit."""

        type: str
        hard: int
        soft: int

    class Scheduler(TypedDict, total=False):
        """sched_setattr(2)."""

        policy: str
        nice: int
        priority: int
        flags: list[str]
        runtime: int
        deadline: int
        period: int

    # "class" is a keyword
    IOPriority = TypedDict("IOPriority", {"class": str, "priority": int}, total=False)

    class CPUAffinity(TypedDict, total=False):
        """CPUs of an exec before and after it joins the cgroup."""

        initial: str
        final: str

    class Process(TypedDict, total=False):
        """What runs, and as whom."""

        terminal: bool
        consoleSize: Box
        user: User
        args: list[str]
        env: list[str]
        cwd: str
        capabilities: Capabilities
        rlimits: list[Rlimit]
        noNewPrivileges: bool
        apparmorProfile: str
        oomScoreAdj: int
        scheduler: Scheduler
        selinuxLabel: str
        ioPriority: IOPriority
        execCPUAffinity: CPUAffinity

    class Root(TypedDict, total=False):
        """The root file system, relative to the bundle or absolute."""

        path: str
        readonly: bool

    class IDMapping(TypedDict, total=False):
        """One row of a uid_map or gid_map."""

        containerID: int
        hostID: int
        size: int

    class Mount(TypedDict, total=False):
        """One mount below the root."""

        destination: str
        type: str
        source: str
        options: list[str]
        uidMappings: list[IDMapping]
        gidMappings: list[IDMapping]

    class Hook(TypedDict, total=False):
        """A program to run at a point of the life of a container."""

        path: str
        args: list[str]
        env: list[str]
        timeout: int

    class Hooks(TypedDict, total=False):
        """The six points, in the order in which they come."""

        prestart: list[Hook]
        createRuntime: list[Hook]
        createContainer: list[Hook]
        startContainer: list[Hook]
        poststart: list[Hook]
        poststop: list[Hook]

    class Namespace(TypedDict, total=False):
        """A namespace: new, or joined by path."""

        type: str
        path: str

    class Device(TypedDict, total=False):
        """A device node."""

        path: str
        type: str
        major: int
        minor: int
        fileMode: int
        uid: int
        gid: int

    class NetDevice(TypedDict, total=False):
        """A network device moved into the container."""

        name: str

    class DeviceRule(TypedDict, total=False):
        """What the cgroup lets a container do with devices."""

        allow: bool
        type: str
        major: int
        minor: int
        access: str

    class Memory(TypedDict, total=False):
        """Memory limits in bytes; -1 is none."""

        limit: int
        reservation: int
        swap: int
        kernel: int
        kernelTCP: int
        swappiness: int
        disableOOMKiller: bool
        useHierarchy: bool
        checkBeforeUpdate: bool

    class CPU(TypedDict, total=False):
        """CPU limits; times in microseconds."""

        shares: int
        quota: int
        burst: int
        period: int
        realtimeRuntime: int
        realtimePeriod: int
        cpus: str
        mems: str
        idle: int

    class Pids(TypedDict, total=False):
        """How many tasks."""

        limit: int

    class WeightDevice(TypedDict, total=False):
        """The share of one block device."""

        major: int
        minor: int
        weight: int
        leafWeight: int

    class ThrottleDevice(TypedDict, total=False):
        """The rate of one block device."""

        major: int
        minor: int
        rate: int

    class BlockIO(TypedDict, total=False):
        """Block device shares and rates."""

        weight: int
        leafWeight: int
        weightDevice: list[WeightDevice]
        throttleReadBpsDevice: list[ThrottleDevice]
        throttleWriteBpsDevice: list[ThrottleDevice]
        throttleReadIOPSDevice: list[ThrottleDevice]
        throttleWriteIOPSDevice: list[ThrottleDevice]

    class HugepageLimit(TypedDict, total=False):
        """A limit for one page size, such as 2MB."""

        pageSize: str
        limit: int

    class InterfacePriority(TypedDict, total=False):
        """net_prio of one interface."""

        name: str
        priority: int

    class Network(TypedDict, total=False):
        """net_cls and net_prio, cgroup v1 only."""

        classID: int
        priorities: list[InterfacePriority]

    class Rdma(TypedDict, total=False):
        """Limits of one RDMA device."""

        hcaHandles: int
        hcaObjects: int

    class Resources(TypedDict, total=False):
        """What the cgroup limits."""

        devices: list[DeviceRule]
        memory: Memory
        cpu: CPU
        pids: Pids
        blockIO: BlockIO
        hugepageLimits: list[HugepageLimit]
        network: Network
        rdma: dict[str, Rdma]
        unified: dict[str, str]

    class SeccompArg(TypedDict, total=False):
        """A condition on one argument of a system call."""

        index: int
        value: int
        valueTwo: int
        op: str

    class SeccompCall(TypedDict, total=False):
        """What happens on some system calls."""

        names: list[str]
        action: str
        errnoRet: int
        args: list[SeccompArg]

    class Seccomp(TypedDict, total=False):
        """The system call filter."""

        defaultAction: str
        defaultErrnoRet: int
        architectures: list[str]
        flags: list[str]
        listenerPath: str
        listenerMetadata: str
        syscalls: list[SeccompCall]

    class IntelRdt(TypedDict, total=False):
        """Cache and memory bandwidth by resctrl."""

        closID: str
        schemata: list[str]
        l3CacheSchema: str
        memBwSchema: str
        enableMonitoring: bool

    class MemoryPolicy(TypedDict, total=False):
        """set_mempolicy(2)."""

        mode: str
        nodes: str
        flags: list[str]

    class Personality(TypedDict, total=False):
        """personality(2)."""

        domain: str
        flags: list[str]

    class TimeOffset(TypedDict, total=False):
        """How far a clock of a time namespace is ahead."""

        secs: int
        nanosecs: int

    class Linux(TypedDict, total=False):
        """What only Linux has."""

        uidMappings: list[IDMapping]
        gidMappings: list[IDMapping]
        sysctl: dict[str, str]
        resources: Resources
        cgroupsPath: str
        namespaces: list[Namespace]
        devices: list[Device]
        netDevices: dict[str, NetDevice]
        seccomp: Seccomp
        rootfsPropagation: str
        maskedPaths: list[str]
        readonlyPaths: list[str]
        mountLabel: str
        intelRdt: IntelRdt
        memoryPolicy: MemoryPolicy
        personality: Personality
        timeOffsets: dict[str, TimeOffset]

    class Spec(TypedDict, total=False):
        """A whole config.json."""

        ociVersion: str
        process: Process
        root: Root
        hostname: str
        domainname: str
        mounts: list[Mount]
        hooks: Hooks
        annotations: dict[str, str]
        linux: Linux
