"""The Chinese of what the tables say, by the English. Names of peers and units are the same in both languages."""

from __future__ import annotations

from benchmarks.payloads import WORDS

_PAYLOADS = {"S": "35 个字符的 str", "M": "1 KiB 的事件字典", "L": "64 KiB 的字节串", "XL": "4 MiB 的字节串"}

_TALKS = {
    "one way, host to child": "单向, 宿主到子进程",
    "one way, child to host": "单向, 子进程到宿主",
    "one way from a coroutine, host to child": "从协程单向发送, 宿主到子进程",
    "one way from a coroutine, child to host": "从协程单向发送, 子进程到宿主",
    "round trip, both sides block in a thread": "往返, 双方都在线程中阻塞",
    "round trip, the child answers in a coroutine": "往返, 子进程在协程中应答",
}

_DIRECTIONS = {"host to child": "宿主到子进程", "child to host": "子进程到宿主"}

_TIMES = ("W2 S", "W2 M", "W2b S", "W2b M")

TEXTS = {
    # measures
    **{
        f"{english}, {subject}: {words}": f"{chinese}, {subject}: {_PAYLOADS[subject]}"
        for english, chinese in _TALKS.items()
        for subject, words in WORDS.items()
    },
    "round trip while another channel is flooded with L": "另一个通道被 L 占满时的往返",
    "control round trip while a channel is flooded with L": "一个通道被 L 占满时的控制往返",
    "key-value: get of a 35-character str": "键值: 读取 35 个字符的 str",
    "key-value: get of a 1 KiB dict": "键值: 读取 1 KiB 的字典",
    "key-value: set of a 35-character str, as the peer does it": "键值: 写入 35 个字符的 str, 按对比对象各自的方式",
    "key-value: set, each confirmed before the next": "键值: 写入, 每次确认之后再写下一次",
    "key-value: set, each confirmed, from 64 tasks": "键值: 写入, 每次确认, 由 64 个任务进行",
    "key-value: set in one process until the callback in the other": "键值: 从一个进程写入到另一个进程的回调函数",
    "one publisher, all children: deliveries of M in all": "一个发布者, 全部子进程: M 的投递总数",
    "resident memory of the child over a bare interpreter": "子进程比空的解释器多用的常驻内存",
    "resident memory of the idle host, all of it": "空闲宿主的全部常驻内存",
    "from the start of the bot's process until its port answers": "从机器人进程启动到端口应答",
    "processor time of an idle host with 5 bots, of one core": "有 5 个机器人的空闲宿主的处理器时间, 占一个核心",
    # headings and columns
    "What is to be reached": "目标",
    "Not measured": "未测量",
    "goal": "目标",
    "this run": "本次运行",
    "must reach": "必须达到",
    "reached": "达到",
    "aim at": "期望达到",
    "yes": "是",
    "no": "否",
    "peer": "对比对象",
    "median [min - max]": "中位数 [最小 - 最大]",
    "x {}": "{} 的倍数",
    "x best peer ({})": "最好的对比对象 ({}) 的倍数",
    "x limit ({})": "极限 ({}) 的倍数",
    "p99": "p99",
    "bare": "空的解释器",
    "with an event loop": "有事件循环时",
    "asyncio alone": "仅 asyncio",
    "switches/s": "上下文切换/s",
    ", one core": ", 单核",
    "higher is better": "越高越好",
    "lower is better": "越低越好",
    "{cores} cores, {system}, {python}; {rounds} interleaved rounds of {seconds:g} s, "
    "broadcast to {children} children; median [min - max]; {versions}.": (
        "{cores} 个核心, {system}, {python}; 交替进行 {rounds} 轮, 每轮 {seconds:g} s, "
        "向 {children} 个子进程广播; 中位数 [最小 - 最大]; {versions}。"
    ),
    # goals
    **{
        f"W1 {subject}, {english}: {relation} {to}": f"W1 {subject}, {chinese}: {to} 的{share}"
        for english, chinese in _DIRECTIONS.items()
        for subject in WORDS
        for relation, share in (("x", "倍数"), ("of", "比例"))
        for to in ("zmq + msgspec", "mp.Pipe", "socketpair + msgspec batched")
    },
    "W1 S from a coroutine of the host: of the thread's figure": "W1 S, 从宿主的协程发送: 从线程发送的比例",
    "W1 S from a coroutine of the child: of the thread's figure": "W1 S, 从子进程的协程发送: 从线程发送的比例",
    **{f"{name}, one core: time over mp.Pipe's": f"{name}, 单核: mp.Pipe 所用时间的倍数" for name in _TIMES},
    "W2 under load, p99": "有负载时的 W2, p99",
    "control round trip under load, p99": "有负载时的控制往返, p99",
    "get of a scalar: x UltraDict": "读取单个值: UltraDict 的倍数",
    "get of a 1 KiB dict: x mp.Manager dict": "读取 1 KiB 的字典: mp.Manager dict 的倍数",
    "get of a 1 KiB dict: of its bare decode": "读取 1 KiB 的字典: 仅解码的比例",
    "set, queued: x shared-memory-dict": "写入, 排队: shared-memory-dict 的倍数",
    "set, confirmed one by one: x mp.Manager dict": "写入, 逐次确认: mp.Manager dict 的倍数",
    "set, confirmed from 64 tasks: x mp.Manager dict": "写入, 由 64 个任务确认: mp.Manager dict 的倍数",
    "set until the callback elsewhere, one core: time over mp.Pipe's round trip": (
        "从写入到另一处的回调函数, 单核: mp.Pipe 往返时间的倍数"
    ),
    "broadcast of M, deliveries: x our own W1 M": "广播 M, 投递数: 自身 W1 M 的倍数",
    "memory of a child over a bare interpreter, without NoneBot": "子进程比空的解释器多用的内存, 不含 NoneBot",
    "memory of an idle host": "空闲宿主的内存",
    "python bot.py until ready: longer than nb run by": "python bot.py 到就绪: 比 nb run 多用",
    "idle host with 5 bots, of one core": "有 5 个机器人的空闲宿主, 占一个核心",
}
