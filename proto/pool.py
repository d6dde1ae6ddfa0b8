"""The descriptor pool of Tenure's messages.

MorphML's own stubs register a file ``worker.proto`` with the package ``morphml.distributed`` in protobuf's default
pool, and the default pool takes one file of a name only. With a pool of our own both live in one process, which is
what a search program that imports MorphML needs.
"""

from google.protobuf.descriptor_pool import DescriptorPool

POOL = DescriptorPool()
