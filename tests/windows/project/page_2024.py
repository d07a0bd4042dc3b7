"""The bot's half as the page of 2024 prints it, its import lines changed and nothing else."""

from nonebot import get_driver

from nonebot_plugin_lycomm import active_channel

driver = get_driver()


@driver.on_startup
def receive_active():
    while True:
        data = active_channel.receive()
        print("Active receive:", data)
