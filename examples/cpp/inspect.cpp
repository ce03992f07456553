// Inspect frames with OpenVINO alone: inspect EXPORTED FRAME.ppm...
//
// EXPORTED is what `fapm export part.fapm EXPORTED` wrote. A frame is a binary PPM (P6, RGB, 8 bit)
// of the size that detector.json names; a camera's buffer of that size and order serves as well.
// Scores and the worst places are printed; detector.json has the thresholds to judge scores by.
#include <algorithm>
#include <cstdint>
#include <exception>
#include <fstream>
#include <iostream>
#include <limits>
#include <openvino/openvino.hpp>
#include <stdexcept>
#include <string>

// The next number of a PPM's header; comments, from # to the end of the line, may stand before it.
std::size_t next_number(std::istream& file) {
    while ((file >> std::ws).peek() == '#')
        file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    std::size_t number = 0;
    file >> number;
    return number;
}

ov::Tensor read_frame(const std::string& path, const ov::Shape& shape) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened; check the path");
    const int letter = file.get(), digit = file.get();
    if (letter != 'P' || digit != '6')
        throw std::runtime_error(path + ": not a binary PPM (P6); save it as one, RGB of 8 bit");
    const auto width = next_number(file), height = next_number(file), deepest = next_number(file);
    file.get();  // the one blank before the pixels
    if (!file) throw std::runtime_error(path + ": its header is not that of a PPM");
    if (deepest != 255)
        throw std::runtime_error(path + ": its samples go to " + std::to_string(deepest) +
                                 "; save it with 8 bit, which go to 255");
    if (height != shape[1] || width != shape[2])
        throw std::runtime_error(path + ": must be " + std::to_string(shape[2]) + " x " +
                                 std::to_string(shape[1]) + " pixels");
    ov::Tensor frame(ov::element::u8, shape);
    file.read(reinterpret_cast<char*>(frame.data<std::uint8_t>()), frame.get_byte_size());
    if (!file) throw std::runtime_error(path + ": ends too soon");
    return frame;
}

int main(int count, char** arguments) try {
    if (count < 3) throw std::runtime_error("usage: inspect EXPORTED FRAME.ppm...");
    ov::Core core;
    auto model = core.compile_model(std::string(arguments[1]) + "/model.xml", "CPU",
                                    ov::hint::inference_precision(ov::element::f32),
                                    ov::hint::performance_mode(ov::hint::PerformanceMode::LATENCY));
    auto request = model.create_infer_request();
    int exit_code = 0;
    for (int i = 2; i < count; ++i) try {
        request.set_input_tensor(read_frame(arguments[i], model.input().get_shape()));
        request.infer();
        const auto maps = request.get_tensor("maps");
        const float* map = maps.data<float>();
        const auto worst = std::max_element(map, map + maps.get_size()) - map;
        const auto width = static_cast<long>(maps.get_shape()[2]);
        std::cout << request.get_tensor("scores").data<float>()[0] << " worst at " << worst % width
                  << ", " << worst / width << " " << arguments[i] << "\n";
    } catch (const std::runtime_error& error) {  // one bad frame does not stop the others
        std::cerr << "inspect: " << error.what() << "\n";
        exit_code = 2;
    }
    return exit_code;
} catch (const std::exception& error) {
    std::cerr << "inspect: " << error.what() << "\n";
    return 2;
}
