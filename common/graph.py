"""placeholder"""
def check_graph(parsed: object) -> object:
    return parsed
