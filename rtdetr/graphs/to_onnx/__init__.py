"""From a traced function to an ONNX graph."""
