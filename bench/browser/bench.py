"""Keystroke to picture in a real browser: headless Chromium types at 8 keys a second into the studio, and the page's own meter says
how long each key waited for a picture on the screen.

    python bench/browser/bench.py --prima target/release/prima      (needs PyPI's selenium, Chromium and chromedriver)
"""

import argparse
import json
import re
import shutil
import subprocess
import time

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

KEY_S = 0.125
#: As many keys as the meter keeps.
KEYS = 120
TEXT = "a cat wearing sunglasses, a dog in a blue car, three red apples on a table, "


def served(prima, model):
    """The server's process and its address."""
    command = [prima, "serve", "--port", "0", *(["--model", model] if model else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    for line in process.stdout:
        if found := re.search(r"http://\S+", line):
            return process, found.group()
    raise SystemExit("prima serve printed no address")


def browser():
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1440,900"):
        options.add_argument(argument)
    return webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))


def seconds(text):
    number, unit = text.split()
    return float(number) / (1000 if unit == "ms" else 1)


def round_of(driver, address):
    driver.get(address)
    painted = "return prima.entries.some(e => e.what === 'painted' && e.final)"
    while not driver.execute_script(painted):
        time.sleep(0.05)
    time.sleep(1)
    field = driver.find_element(By.ID, "prompt")
    field.send_keys(Keys.CONTROL, "a")
    due = time.perf_counter()
    for i in range(KEYS):
        due += KEY_S
        time.sleep(max(0, due - time.perf_counter()))
        field.send_keys(TEXT[i % len(TEXT)])
    time.sleep(2)
    read = lambda name: driver.find_element(By.ID, f"meter-{name}").text
    return {"p50_s": seconds(read("p50")), "p95_s": seconds(read("p95")), "dropped": int(read("dropped"))}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prima", required=True)
    parser.add_argument("--model", help="another than the embedded one")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    process, address = served(args.prima, args.model)
    driver = browser()
    try:
        rounds = [round_of(driver, address) for _ in range(args.rounds)]
    finally:
        driver.quit()
        process.terminate()
    if args.json:
        print(json.dumps(rounds))
        return
    print("| round | p50 ms | p95 ms | dropped |\n|---|---|---|---|")
    for i, found in enumerate(rounds, 1):
        print(f"| {i} | {found['p50_s'] * 1000:.0f} | {found['p95_s'] * 1000:.0f} | {found['dropped']} |")


if __name__ == "__main__":
    main()
