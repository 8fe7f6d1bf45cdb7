// SPDX-License-Identifier: Apache-2.0
/* fake_stranger - a shared object that is no adapter at all. */
int fake_stranger(void);

int fake_stranger(void)
{
    return 0;
}
