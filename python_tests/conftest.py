"""Settings for all tests."""

import torch

# The pictures of the tests are too small for several threads to help, and on a busy machine threads that wait
# for one another make them many times slower. Tests about threads set their own number.
torch.set_num_threads(1)
