"""The network: the only package that opens sockets for DICOM."""
