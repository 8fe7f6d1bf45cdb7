// SPDX-License-Identifier: Apache-2.0
// What a killed process leaves of a Boost.Interprocess managed_mapped_file.
//
//   c++ -O2 -std=c++17 reproduce.cpp -o reproduce -lpthread
//   ./reproduce ROUNDS FILE
//
// Each round: a child allocates and frees without end, and is killed at a random instant; a second
// child opens the file, asks check_sanity() and allocates once. A hang is one that took 2 seconds.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/interprocess/managed_mapped_file.hpp>

namespace bip = boost::interprocess;

static void churn(const char *path)
{
    bip::managed_mapped_file heap(bip::open_only, path);
    void *blocks[256] = {};
    for (unsigned i = 1;; i = i * 1664525u + 1013904223u) {
        void *&block = blocks[i >> 24];
        if (block != nullptr) {
            heap.deallocate(block);
            block = nullptr;
        } else {
            block = heap.allocate(16 + (i >> 8) % 2000, std::nothrow);
        }
    }
}

static int look(const char *path)
{
    alarm(2);
    bip::managed_mapped_file heap(bip::open_only, path);
    if (!heap.check_sanity())
        return 2;
    return heap.allocate(100, std::nothrow) != nullptr ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: %s ROUNDS FILE\n", argv[0]);
        return 2;
    }
    int rounds = atoi(argv[1]), hung = 0, insane = 0, died = 0;
    srand(1);
    for (int round = 0; round < rounds; round++) {
        unlink(argv[2]);
        bip::managed_mapped_file(bip::create_only, argv[2], 8 << 20);
        pid_t child = fork();
        if (child == 0)
            churn(argv[2]);
        usleep(2000 + static_cast<unsigned>(rand()) % 3000);
        kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        int status = 0;
        child = fork();
        if (child == 0)
            _exit(look(argv[2]));
        waitpid(child, &status, 0);
        hung += WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM;
        died += WIFSIGNALED(status) && WTERMSIG(status) != SIGALRM;
        insane += WIFEXITED(status) && WEXITSTATUS(status) == 2;
    }
    unlink(argv[2]);
    printf("of %d killed heaps: %d hang, %d fail check_sanity(), %d crash\n", rounds, hung,
           insane, died);
    return 0;
}
