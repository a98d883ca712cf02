// Runs requests on a SavedModel with TensorFlow's libraries alone, without Python.
//
// Usage: run_model MODEL_DIR < REQUESTS
// A request is words: its input tensor, as OPERATION:INDEX; "files" or "images"; its
// dimensions; paths, one for each string or one with the bytes of all uint8 images;
// output tensors; the files to write them to. A list has its length in front. A written
// file has a line with type and dimensions, then the bytes; a string's size is in front
// of it, on a line.
#include <cstdlib>
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>
#include <vector>

#include "tensorflow/c/c_api.h"

namespace {

TF_Status* status = TF_NewStatus();

void Check(const char* what) {
  if (TF_GetCode(status) == TF_OK) return;
  std::cerr << what << ": code " << TF_GetCode(status) << ": "
            << TF_Message(status) << "\n";
  std::exit(1);
}

std::string Read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

template <typename T>
std::vector<T> Words() {
  size_t number = 0;
  std::cin >> number;
  std::vector<T> words(number);
  for (T& word : words) std::cin >> word;
  return words;
}

TF_Output Find(TF_Graph* graph, const std::string& name) {
  const size_t colon = name.rfind(':');
  TF_Operation* operation =
      TF_GraphOperationByName(graph, name.substr(0, colon).c_str());
  if (operation == nullptr) {
    std::cerr << name << ": not in the graph\n";
    std::exit(1);
  }
  return {operation, std::stoi(name.substr(colon + 1))};
}

TF_Tensor* Input() {
  std::string kind;
  std::cin >> kind;
  const auto sizes = Words<int64_t>();
  const auto paths = Words<std::string>();
  const bool is_files = kind == "files";
  std::string bytes = is_files ? "" : Read(paths[0]);
  TF_Tensor* tensor = TF_AllocateTensor(
      is_files ? TF_STRING : TF_UINT8, sizes.data(), sizes.size(),
      is_files ? paths.size() * sizeof(TF_TString) : bytes.size());
  if (is_files) {
    auto* strings = static_cast<TF_TString*>(TF_TensorData(tensor));
    for (size_t i = 0; i < paths.size(); ++i) {
      bytes = Read(paths[i]);
      TF_StringInit(&strings[i]);
      TF_StringCopy(&strings[i], bytes.data(), bytes.size());
    }
  } else {
    bytes.copy(static_cast<char*>(TF_TensorData(tensor)), bytes.size());
  }
  return tensor;
}

void Write(const TF_Tensor* tensor, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  int64_t number = 1;
  file << TF_TensorType(tensor);
  for (int i = 0; i < TF_NumDims(tensor); ++i) {
    file << " " << TF_Dim(tensor, i);
    number *= TF_Dim(tensor, i);
  }
  file << "\n";
  const char* data = static_cast<const char*>(TF_TensorData(tensor));
  if (TF_TensorType(tensor) != TF_STRING) {
    file.write(data, TF_TensorByteSize(tensor));
    return;
  }
  const auto* strings = reinterpret_cast<const TF_TString*>(data);
  for (int64_t i = 0; i < number; ++i) {
    const size_t size = TF_StringGetSize(&strings[i]);
    file << size << "\n";
    file.write(TF_StringGetDataPointer(&strings[i]), size);
  }
}

}  // namespace

int main(int, char** argv) {
  TF_Graph* graph = TF_NewGraph();
  TF_SessionOptions* options = TF_NewSessionOptions();
  const char* tags[] = {"serve"};
  TF_Session* session = TF_LoadSessionFromSavedModel(
      options, nullptr, argv[1], tags, 1, graph, nullptr, status);
  Check("loading");
  std::string name;
  while (std::cin >> name) {
    const TF_Output input = Find(graph, name);
    TF_Tensor* given = Input();
    std::vector<TF_Output> outputs;
    for (const auto& tensor : Words<std::string>())
      outputs.push_back(Find(graph, tensor));
    const auto paths = Words<std::string>();
    std::vector<TF_Tensor*> found(outputs.size());
    TF_SessionRun(session, nullptr, &input, &given, 1, outputs.data(),
                  found.data(), outputs.size(), nullptr, 0, nullptr, status);
    Check(name.c_str());
    for (size_t i = 0; i < found.size(); ++i) {
      Write(found[i], paths[i]);
      TF_DeleteTensor(found[i]);
    }
    TF_DeleteTensor(given);
  }
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteGraph(graph);
}
