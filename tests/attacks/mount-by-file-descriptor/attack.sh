attack try fsopen
