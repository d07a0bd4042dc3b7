# Starts the host. It starts the bot of this folder, described by [tool.nonebot] in pyproject.toml,
# and keeps it alive.
from liteyuki_host import Host

if __name__ == "__main__":
    Host().run()
