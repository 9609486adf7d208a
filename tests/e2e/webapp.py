"""Web traffic: sends tasks at irregular moments, some of them those of beat.

    webapp.py SEED

Each request sends one to four tasks at once. The sending process is replaced by
a new one now and then, as web servers recycle theirs: another origin.
"""

import itertools
import multiprocessing
import random
import sys
import time

from beatapp import add, cleanup_celery_results, cleanup_orphaned_jobs

REQUESTS = 25
MEAN_S = 0.7


def serve(seed):
    chance = random.Random(seed)
    for _ in range(REQUESTS):
        time.sleep(chance.expovariate(1 / MEAN_S))
        for _ in range(chance.randint(1, 4)):
            task = chance.choice([add, add, cleanup_orphaned_jobs, cleanup_celery_results])
            task.delay(*((2, 3) if task is add else ()))


if __name__ == "__main__":
    fork = multiprocessing.get_context("fork")
    for seed in itertools.count(int(sys.argv[1]), 100):
        process = fork.Process(target=serve, args=(seed,))
        process.start()
        process.join()
